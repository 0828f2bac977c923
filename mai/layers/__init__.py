"""Modules and what composes them: everything here is a `Module`, so it is called, configured and traced in one way."""

from .conditional import Conditional
from .delay import BlockingDelay, NonBlockingDelay
from .module import Module
from .parallel import Parallel
from .sequential import Sequential

# isort: split
# Last, so that for pyright too `module` is the function and not the file of that name.
from .function import FunctionModule, module

__all__ = [
    "BlockingDelay", "Conditional", "FunctionModule", "Module", "NonBlockingDelay", "Parallel", "Sequential", "module",
]  # fmt: skip
