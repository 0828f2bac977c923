"""mai: compose AI agents and workflows out of ordinary Python.

Subclass one `Module` with a ``forward`` (or decorate a function with `module`), configure it with ``with_``, compose it
with ``>>``, ``&``, `Conditional` and delays, and call it like a function::

    mai.layers   Module and the composites          mai.types   Context, Payload, TraceHandle
    mai.errors   the tree of exceptions             mai.views   a trace as text
    mai.cli      the ``mai`` command                mai.core    the mechanism; nothing in it is public by itself

This page is the face: what most programs import.
"""

from .core.engine import LocalEngine
from .core.trace import capture
from .errors import (
    CastError,
    ConfigError,
    CycleError,
    DeadlineExceeded,
    MaiError,
    PartialFailure,
    PayloadError,
    TracingError,
    WiringError,
    WouldDeadlock,
)
from .layers import (
    BlockingDelay,
    Conditional,
    Graph,
    Module,
    NonBlockingDelay,
    Parallel,
    Ref,
    Sequential,
    graph,
    module,
)
from .types import Call, Context, Payload, Retry, TraceHandle, WorkflowPlan

__version__ = "0.1.0.dev0"

__all__ = [
    "BlockingDelay", "Call", "CastError", "Conditional", "ConfigError", "Context", "CycleError", "DeadlineExceeded",
    "Graph", "LocalEngine", "MaiError", "Module", "NonBlockingDelay", "Parallel", "PartialFailure", "Payload",
    "PayloadError", "Ref", "Retry", "Sequential", "TraceHandle", "TracingError", "WiringError", "WorkflowPlan",
    "WouldDeadlock", "capture", "graph", "module",
]  # fmt: skip
