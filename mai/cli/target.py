"""From ``file.py:name`` or ``package.module:name`` to the Module that it names.

The file is imported as any module is, under a name of its own in ``sys.modules``, because pydantic, dataclasses and
type hints look their names up there.
"""

import difflib
import importlib
import importlib.util
import re
import sys
import traceback
import types
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

from mai.cli.usage import BadUsage, short
from mai.layers import Module

__all__ = ["import_paths", "load"]

_FORM = "TARGET is file.py:name or package.module:name"
_FRAMES_SHOWN = 3
_NAMES_SHOWN = 12


@contextmanager
def import_paths(written: str) -> Generator[None]:
    """Put the working directory, before it the directory of the target's file, on ``sys.path`` for the block."""
    place = _split(written)[0]
    added = [str(Path.cwd())]
    if _is_path(place):
        added.insert(0, str(Path(place).resolve().parent))
    sys.path[:0] = added
    try:
        yield
    finally:
        for path in added:
            if path in sys.path:
                sys.path.remove(path)


def load(written: str) -> Module[Any, Any]:
    """Return the Module that the target *written* names; a class of Modules is constructed without arguments.

    Raises:
        BadUsage: If there is no such file, module or name, if it cannot be imported, or if it is no Module.
    """
    place, name = _split(written)
    if not place:
        raise BadUsage(f"{written!r} names no file or module; {_FORM}")
    module = _load_file(Path(place)) if _is_path(place) else _load_dotted(place, name)
    if not name:
        raise BadUsage(f"{written!r} does not say which Module to run: write {place}:NAME{_found(module)}")
    value: object = module
    for part in name.split("."):
        value = getattr(value, part, _MISSING)
        if value is _MISSING:
            match = difflib.get_close_matches(name, _modules_in(module), n=1)
            hint = f"; did you mean {match[0]!r}?" if match else ""
            raise BadUsage(f"{place} has no {name!r}{hint}{_found(module)}")
    return _as_module(value, written, module)


_MISSING = object()


def _split(written: str) -> tuple[str, str]:
    """Return file or module, and the name in it; the colon of a drive letter parts nothing."""
    place, colon, name = written.rpartition(":")
    if not colon or "/" in name or "\\" in name:
        return written, ""
    return place, name


def _is_path(place: str) -> bool:
    return place.endswith(".py") or "/" in place or "\\" in place


def _load_file(path: Path) -> types.ModuleType:
    if not path.is_file():
        if path.is_dir():
            raise BadUsage(f"{path} is a directory; {_FORM}")
        beside = {file.name: file for file in path.parent.glob("*.py")}
        match = difflib.get_close_matches(path.name, beside, n=1)
        raise BadUsage(f"No such file: {path}" + (f"; did you mean {beside[match[0]]}?" if match else ""))
    with _imported(str(path)):
        return _package_member(path.resolve()) or _alone(path)


def _package_member(path: Path) -> types.ModuleType | None:
    """Return the file as a module of the package around it, so that its relative imports work, if there is one."""
    names = [] if path.name == "__init__.py" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    if folder == path.parent or not all(name.isidentifier() for name in names):
        return None
    sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module(".".join(names))
    finally:
        sys.path.remove(str(folder))
    return module if module.__file__ is not None and path.samefile(module.__file__) else None


def _alone(path: Path) -> types.ModuleType:
    """Return the file as a module of its own, named after it unless that name is taken."""
    name = path.stem
    if not name.isidentifier() or name in sys.modules or name in sys.stdlib_module_names:
        name = "mai_target_" + re.sub(r"\W", "_", name)
        while name in sys.modules:
            name += "_"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadUsage(f"{path} is not a Python file; {_FORM}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _load_dotted(place: str, name: str) -> types.ModuleType:
    if not all(part.isidentifier() for part in place.split(".")):
        raise BadUsage(f"{place!r} is neither a file nor the name of a module; {_FORM}")
    try:
        with _imported(place):
            return importlib.import_module(place)
    except BadUsage as problem:
        cause = problem.__cause__
        absent = cause.name if isinstance(cause, ModuleNotFoundError) else None
        if absent is None or not f"{place}.".startswith(f"{absent}."):
            raise
        file = Path(place.replace(".", "/") + ".py")
        hint = (
            f"; did you mean {file}:{name}?" if file.is_file() else f"; looked in {Path.cwd()} and where Python looks"
        )
        raise BadUsage(f"No module named {absent!r}{hint}") from cause


@contextmanager
def _imported(what: str) -> Generator[None]:
    """Turn whatever goes wrong inside an import into a BadUsage that shows the file's own line."""
    try:
        yield
    except BadUsage:
        raise
    except SystemExit as error:
        advice = "put what it does as a script under: if __name__ == '__main__'"
        raise BadUsage(f"{what} calls sys.exit({error.code!r}) when it is imported; {advice}") from error
    except Exception as error:  # the boundary where a failure of the user's file becomes a message
        raise BadUsage(f"Cannot import {what}:\n{_own_lines(error)}") from error


def _own_lines(error: Exception) -> str:
    """Return the traceback below our own frames and the import machinery's, its middle left out if it is long."""
    machinery = ("<frozen importlib", importlib.__file__, __file__)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(machinery)]
    shown = traceback.format_list(frames)
    if len(frames) > _FRAMES_SHOWN:
        first, last = traceback.format_list(frames[:1]), traceback.format_list(frames[-1:])
        shown = [*first, f"  … {len(frames) - 2} more frames\n", *last]
    return "".join([*shown, *traceback.format_exception_only(error)]).rstrip()


def _as_module(value: object, written: str, module: types.ModuleType) -> Module[Any, Any]:
    if _is_module(value):
        return value
    if _is_class_of_modules(value):
        return _construct(value, written)
    return _no_module(value, written, module)


def _is_module(value: object) -> TypeGuard[Module[Any, Any]]:
    return isinstance(value, Module)


def _is_class_of_modules(value: object) -> TypeGuard[type[Module[Any, Any]]]:
    return isinstance(value, type) and issubclass(value, Module)


def _construct(made: type[Module[Any, Any]], written: str) -> Module[Any, Any]:
    try:
        return made()
    except Exception as error:  # the boundary where a failure of the user's class becomes a message
        advice = f"make one in the file and name that: step = {made.__name__}(...)"
        raise BadUsage(
            f"{written} is a class, and {made.__name__}() fails ({type(error).__name__}: {error}); {advice}"
        ) from error


def _no_module(value: object, written: str, module: types.ModuleType) -> NoReturn:
    """Raise, saying what the thing is and what would be a Module."""
    if isinstance(value, type):
        what = "a class that does not derive from mai.Module"
    elif isinstance(value, types.FunctionType):
        what = "a function, not a Module; put @mai.module above it"
    elif isinstance(value, types.ModuleType):
        what = "a Python module, not a mai.Module"
    else:
        what = f"{short(value)}, of type {type(value).__name__}, not a Module"
    raise BadUsage(f"{written} is {what}{_found(module)}")


def _found(module: types.ModuleType) -> str:
    """Return the end of a message that lists the Modules of a file."""
    names = _modules_in(module)
    more = f", … and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return f" (Modules there: {', '.join(names[:_NAMES_SHOWN])}{more})" if names else " (there are no Modules in it)"


def _modules_in(module: types.ModuleType) -> list[str]:
    """Return the public names of the Modules in *module*, and of the classes of Modules that are defined there."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and (_is_module(value) or _is_own_class(value, module))
    ]


def _is_own_class(value: object, module: types.ModuleType) -> bool:
    return _is_class_of_modules(value) and value.__module__ == module.__name__
