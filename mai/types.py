"""The public data types: what calls take, know and leave behind."""

from .core.frame import Context
from .core.middleware import Call
from .core.payload import Payload
from .core.plan import PlanEdge, PlanInput, PlanNode, PlanType, WorkflowPlan
from .core.retry import Retry
from .core.settings import Settings
from .core.trace import ErrorInfo, Outcome, TraceHandle

__all__ = [
    "Call", "Context", "ErrorInfo", "Outcome", "Payload", "PlanEdge", "PlanInput", "PlanNode", "PlanType", "Retry",
    "Settings", "TraceHandle", "WorkflowPlan",
]  # fmt: skip
