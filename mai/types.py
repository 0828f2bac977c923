"""The public data types: what calls take, know and leave behind."""

from .core.frame import Context
from .core.payload import Payload
from .core.settings import Settings
from .core.trace import ErrorInfo, Outcome, TraceHandle

__all__ = ["Context", "ErrorInfo", "Outcome", "Payload", "Settings", "TraceHandle"]
