"""What does ``import mai`` cost, beyond its own dependencies?

Row 17: the time of ``import mai`` in a fresh process, against the time of the import statements for anyio, pydantic and
the OpenTelemetry API that mai itself executes, in another. What is left is mai's own code and what it takes from the
standard library, above all asyncio, which a program that calls mai needs anyway; so both are shown, without and with
asyncio on the side of the dependencies. The OpenTelemetry SDK must not be loaded.
"""

import ast
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import mai

from .harness import Row, Scale, Times, main, ratio
from .promises import promise

__all__ = ["rows"]

_DEPENDENCIES = {"anyio", "opentelemetry", "pydantic", "pydantic_core"}
_TIME = "from time import perf_counter_ns as now; start = now()\n{}\ntime = now() - start\nimport sys\nprint(time)\n"
_LOADED = "print('opentelemetry.sdk' in sys.modules, *sorted(m for m in sys.modules if m.split('.')[0] == 'mai'))"


def _fresh(code: str) -> list[str]:
    """Run *code* in a fresh process and return the words that it prints."""
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.split()


@dataclass(frozen=True)
class Import:
    """Import statements; the sample is their time in a fresh process [ns]."""

    code: str

    async def take(self) -> float:
        """Start a process and let it time itself."""
        return float(_fresh(_TIME.format(self.code))[0])


def _statements(modules: list[str]) -> str:
    """Return the statements by which *modules* of mai import what mai depends on, as they run at import time."""
    root = Path(mai.__file__).resolve().parents[1]
    found: set[str] = set()
    for name in modules:
        path = root.joinpath(*name.split("."))
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        for node in ast.parse(source.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            if {name.split(".")[0] for name in names} & _DEPENDENCIES:
                found.add(ast.unparse(node))
    return "\n".join(sorted(found))


async def rows(scale: Scale) -> list[Row]:
    """Assert the promises, and return what is to be measured."""
    _, sdk, *modules = _fresh(_TIME.format("import mai") + _LOADED)
    promise(sdk == "False", "import mai loads no OpenTelemetry SDK")
    dependencies = _statements(modules)
    loaded = {statement.split()[1].split(".")[0] for statement in dependencies.splitlines()}
    promise({"anyio", "pydantic", "opentelemetry"} <= loaded, f"the peer imports what mai imports: {sorted(loaded)}")

    def lines(peer: str, code: str) -> list[Row]:
        samples, rounds = {"mai": Import("import mai"), "peer": Import(code)}, scale.heavy_rounds
        return [
            Row("17", f"import mai over {peer}", 1.15, "times", samples, ratio("mai", "peer"), rounds, 1),
            Row("17", f"import mai beyond {peer}", 15, "ms", samples, _difference, rounds, 1),
        ]

    with_asyncio = lines("its dependencies and asyncio", f"import asyncio\n{dependencies}")
    return [*lines("its dependencies", dependencies), *with_asyncio]


def _difference(times: Times) -> float:
    return (times["mai"] - times["peer"]) / 1e6


if __name__ == "__main__":
    raise SystemExit(main(["import"]))
