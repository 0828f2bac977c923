"""Modules and what composes them: everything here is a `Module`, so it is called, configured and traced in one way."""

from .conditional import Conditional
from .delay import BlockingDelay, NonBlockingDelay
from .graph import Graph
from .loop import Loop
from .map import Map
from .module import Module
from .parallel import Parallel
from .race import Race
from .ref import Ref
from .sequential import Sequential
from .settings import Settings
from .switch import Switch

# isort: split
# Last, so that for pyright too `graph` and `module` are the functions and not the files of that name.
from .function import FunctionModule, module
from .tracing import graph

__all__ = [
    "BlockingDelay", "Conditional", "FunctionModule", "Graph", "Loop", "Map", "Module", "NonBlockingDelay", "Parallel",
    "Race", "Ref", "Sequential", "Settings", "Switch", "graph", "module",
]  # fmt: skip
