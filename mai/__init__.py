"""mai: compose AI agents and workflows out of ordinary Python.

Subclass one `Module` with a ``forward`` (or decorate a function with `module`), configure it with ``with_``, compose it
with ``>>``, ``&``, `Conditional`, `Switch`, `Loop`, `Map`, `Race` and delays, and call it like a function::

    mai.layers   Module and the composites          mai.types   Context, Payload, TraceHandle
    mai.errors   the tree of exceptions             mai.views   a trace as text
    mai.models   language models                    mai.agents  models that call tools
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
    NeedsAttention,
    PartialFailure,
    PayloadError,
    PlanChanged,
    ReplayMismatch,
    RunExists,
    StepFailed,
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
from .layers.verbs import now, patched, random, uuid, wait_for
from .types import Call, Context, Payload, Retry, TraceHandle, WorkflowPlan

__version__ = "0.1.0.dev0"

__all__ = [
    "AlreadyRecorded", "AskError", "BlockingDelay", "Call", "CastError", "Conditional", "ConfigError", "Context",
    "CorruptJournal", "CycleError", "DeadlineExceeded", "Fenced", "Graph", "JournalError", "LocalEngine", "Loop",
    "LoopExhausted", "MaiError", "Map", "Module", "NeedsAttention", "NonBlockingDelay", "Parallel", "PartialFailure",
    "Payload", "PayloadError", "PlanChanged", "Race", "Ref", "ReplayMismatch", "Retry", "RunExists", "Sequential",
    "Settings", "StepFailed", "Switch", "TooManyAbandoned", "TraceHandle", "TracingError", "UnknownCase", "UnknownRun",
    "WiringError", "WorkflowPlan", "WouldDeadlock", "answers", "ask", "capture", "emit", "graph", "module", "now",
    "patched", "random", "uuid", "wait_for",
]  # fmt: skip
