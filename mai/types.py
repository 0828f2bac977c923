"""The public data types: what calls take, know and leave behind."""

from .core.control import Question, Reader, Stream
from .core.events import Asked, Chunk, Emitted, Event, Failed, Finished, Progress, Retrying, Started
from .core.frame import Context
from .core.middleware import Call
from .core.payload import Payload
from .core.plan import PlanEdge, PlanInput, PlanNode, PlanType, WorkflowPlan
from .core.retry import Retry
from .core.settings import Settings
from .core.trace import ErrorInfo, Outcome, TraceHandle

__all__ = [
    "Asked", "Call", "Chunk", "Context", "Emitted", "ErrorInfo", "Event", "Failed", "Finished", "Outcome", "Payload",
    "PlanEdge", "PlanInput", "PlanNode", "PlanType", "Progress", "Question", "Reader", "Retry", "Retrying", "Settings",
    "Started", "Stream", "TraceHandle", "WorkflowPlan",
]  # fmt: skip
