"""mai: compose AI agents and workflows out of ordinary Python.

Subclass one `Module` with a ``forward`` (or decorate a function with `module`), configure it with ``with_``, compose it
with ``>>``, ``&``, `Conditional`, `Switch`, `Loop`, `Map`, `Race` and delays, and call it like a function::

    mai.layers   Module and the composites          mai.types   Context, Payload, TraceHandle
    mai.errors   the tree of exceptions             mai.views   a trace as text
    mai.telemetry   where spans go
    mai.cli      the ``mai`` command                mai.core    the mechanism; nothing in it is public by itself

This page is the face: what most programs import.
"""

from .core.engine import LocalEngine
from .core.events import emit
from .errors import (
    AlreadyRecorded,
    AskError,
    CastError,
    ConfigError,
    CorruptJournal,
    CycleError,
    DeadlineExceeded,
    Fenced,
    JournalError,
    LoopExhausted,
    MaiError,
    PartialFailure,
    PayloadError,
    RunExists,
    TooManyAbandoned,
    TracingError,
    UnknownCase,
    UnknownRun,
    WiringError,
    WouldDeadlock,
)
from .layers import (
    BlockingDelay,
    Conditional,
    Graph,
    Loop,
    Map,
    Module,
    NonBlockingDelay,
    Parallel,
    Race,
    Ref,
    Sequential,
    Settings,
    Switch,
    graph,
    module,
)
from .layers.ask import answers, ask
from .layers.capture import capture
from .types import Call, Context, Payload, Retry, TraceHandle, WorkflowPlan

__version__ = "0.1.0.dev0"

__all__ = [
    "AlreadyRecorded", "AskError", "BlockingDelay", "Call", "CastError", "Conditional", "ConfigError", "Context",
    "CorruptJournal", "CycleError", "DeadlineExceeded", "Fenced", "Graph", "JournalError", "LocalEngine", "Loop",
    "LoopExhausted", "MaiError", "Map", "Module", "NonBlockingDelay", "Parallel", "PartialFailure", "Payload",
    "PayloadError", "Race", "Ref", "Retry", "RunExists", "Sequential", "Settings", "Switch", "TooManyAbandoned",
    "TraceHandle", "TracingError", "UnknownCase", "UnknownRun", "WiringError", "WorkflowPlan", "WouldDeadlock",
    "answers", "ask", "capture", "emit", "graph", "module",
]  # fmt: skip
