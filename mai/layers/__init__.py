"""Modules and what composes them: everything here is a `Module`, so it is called, configured and traced in one way."""

from .conditional import Conditional
from .delay import BlockingDelay, NonBlockingDelay
from .loop import Loop
from .map import Map
from .module import Module
from .parallel import Parallel
from .race import Race
from .sequential import Sequential
from .settings import Settings
from .switch import Switch

# isort: split
# Last, so that for pyright too `module` is the function and not the file of that name.
from .function import FunctionModule, module

__all__ = [
    "BlockingDelay", "Conditional", "FunctionModule", "Loop", "Map", "Module", "NonBlockingDelay", "Parallel", "Race",
    "Sequential", "Settings", "Switch", "module",
]  # fmt: skip
