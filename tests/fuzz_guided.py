"""Damaged data, guided by coverage: ``python -m tests.fuzz_guided TARGET [--inputs N]``.

It needs atheris, which is not among the tools of the project and is not there for every Python. It begins with the
examples of a target of `tests.fuzz`, changes their bytes, and keeps what reaches code that nothing reached before. What
breaks the rule of the target ends it with the input.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["mai"]):
    from tests.fuzz import TARGETS, tried


def main() -> None:
    """Fuzz; libFuzzer ends the process by itself."""
    parser = argparse.ArgumentParser(description="Damaged data, guided by coverage")
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--inputs", type=int, default=10_000, help="how many (default: 10000)")
    given = parser.parse_args()
    target = TARGETS[given.target]

    def read(data: bytes) -> None:
        if problem := tried(target, data):
            raise AssertionError(problem)

    with tempfile.TemporaryDirectory() as folder:
        for number, example in enumerate(target.examples()):
            (Path(folder) / str(number)).write_bytes(example)
        atheris.Setup([sys.argv[0], folder, f"-runs={given.inputs}", "-max_len=100000"], read)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
