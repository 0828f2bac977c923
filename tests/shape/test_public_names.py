"""What is public is listed, sorted, there, documented, and in the reference."""

import importlib
import inspect
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOMS = (
    "mai",
    "mai.agents",
    "mai.errors",
    "mai.layers",
    "mai.middleware",
    "mai.models",
    "mai.telemetry",
    "mai.testing",
    "mai.tools",
    "mai.types",
)


def problems(module: types.ModuleType) -> Iterator[str]:
    """Yield what is wrong with the public names of *module*."""
    where = module.__name__
    names: list[str] = list(getattr(module, "__all__", ()))
    if not names:
        yield f"{where} has no __all__"
    if names != sorted(set(names)):
        yield f"{where}.__all__ is not sorted, or names something twice: {names}"
    if not inspect.getdoc(module):
        yield f"{where} has no docstring"
    for name in names:
        if not hasattr(module, name):
            yield f"{where}.{name} is listed but is not there"
        else:
            yield from undocumented(f"{where}.{name}", getattr(module, name))


def undocumented(where: str, value: object) -> Iterator[str]:
    """Yield *where* if *value* needs a docstring and has none, and those of its public members that have none."""
    if isinstance(value, type):
        if not value.__dict__.get("__doc__"):
            yield f"{where} has no docstring of its own"
        for name, member in list(value.__dict__.items()):  # a model that is built when first looked at grows
            plain = getattr(member, "__func__", getattr(member, "fget", member))
            described = isinstance(member, property | classmethod | staticmethod) or inspect.isfunction(member)
            if described and not name.startswith("_") and not getattr(plain, "__doc__", None):
                yield f"{where}.{name} has no docstring"
    elif inspect.isroutine(value) and not value.__doc__:
        yield f"{where} has no docstring"


def described_by_itself(value: object) -> bool:
    """Whether ``automodule`` finds *value* by its docstring: an alias or a constant has none of its own."""
    return isinstance(value, type) or inspect.isroutine(value)


def unlisted(rooms: dict[str, types.ModuleType], pages: Path) -> list[str]:
    """Return the public names for which no page of the reference has a directive."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(pages.glob("*.rst")))
    with_pages = (room.removeprefix("mai.") for room in ROOMS if room != "mai")
    whole = {f"mai.{room}" for room in with_pages if f".. automodule:: mai.{room}\n" in text}
    covered = {
        name for room in whole for name in rooms[room].__all__ if described_by_itself(getattr(rooms[room], name))
    }
    missing = []
    for room, module in rooms.items():
        for name in module.__all__:
            single = any(f".. auto{kind}:: {room}.{name}\n" in text for kind in ("class", "data", "function"))
            if not single and name not in covered and name != "__version__":
                missing.append(f"{room}.{name}")
    return missing


@pytest.mark.parametrize("room", ROOMS)
def test_public_names_are_sorted_there_and_documented(room: str) -> None:
    assert list(problems(importlib.import_module(room))) == []


def test_every_public_name_stands_in_the_reference(root: Path) -> None:
    rooms = {room: importlib.import_module(room) for room in ROOMS}
    assert unlisted(rooms, root / "docs" / "reference") == []


def test_the_reference_names_nothing_that_is_gone(root: Path) -> None:
    for path in sorted((root / "docs" / "reference").glob("*.rst")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith((".. autoclass:: ", ".. autofunction:: ", ".. autodata:: ")):
                room, _, name = line.split(":: ")[1].rpartition(".")
                assert name in importlib.import_module(room).__all__


PLANTED = '''
"""A module."""
__all__ = ["b", "a", "a", "gone", "C"]
def a(): "Documented."
def b(): pass
class Documented:
    """A base with a docstring, which its subclasses do not inherit here."""
class C(Documented):
    def told(self): "Documented."
    def untold(self): pass
    @property
    def fact(self): return 1
    @classmethod
    def made(cls): return cls()
    def _private(self): pass
'''


def planted(source: str) -> types.ModuleType:
    module = types.ModuleType("m")
    exec(source, module.__dict__)
    return module


def test_planted_problems_are_seen() -> None:
    assert list(problems(planted(PLANTED))) == [
        "m.__all__ is not sorted, or names something twice: ['b', 'a', 'a', 'gone', 'C']",
        "m.b has no docstring",
        "m.gone is listed but is not there",
        "m.C has no docstring of its own",
        "m.C.untold has no docstring",
        "m.C.fact has no docstring",
        "m.C.made has no docstring",
    ]
    assert list(problems(planted("x = 1"))) == ["m has no __all__", "m has no docstring"]


def test_a_name_that_the_reference_lacks_is_seen(tmp_path: Path) -> None:
    (tmp_path / "index.rst").write_text(
        ".. automodule:: mai.errors\n\n.. autofunction:: mai.capture\n", encoding="utf-8"
    )
    rooms = {
        "mai": planted("__all__ = ['Boom', 'Module', '__version__', 'capture']"),
        "mai.errors": planted("__all__ = ['Alias', 'Boom']\nAlias = int | str\nclass Boom: ..."),
        "mai.layers": planted("__all__ = ['Module']\nclass Module: ..."),
        "mai.types": planted("__all__ = []"),
    }
    assert unlisted(rooms, tmp_path) == ["mai.Module", "mai.errors.Alias", "mai.layers.Module"]
