"""mai.models: language models as Modules.

`Model` takes a prompt and gives a `Reply`; ``model.returning(Type)`` gives a value of a type; `Embedder` gives vectors.
`ScriptedModel` and `ReplayModel` ask nobody, and `no_requests` sees to it. `Budget` limits what calls cost, `spent`
says what they did. Vendors are asked through pydantic-ai, which the extra ``llm`` installs.
"""

from .budget import Budget, Spent, no_requests, spent
from .embedder import Embedder, Embeddings
from .errors import (
    AuthError,
    BadRequest,
    BudgetExhausted,
    ContentFiltered,
    ContextTooLong,
    InvalidOutput,
    InvalidReply,
    ModelError,
    NoRequests,
    NotScripted,
    Overloaded,
    QuotaExceeded,
    RateLimited,
    Refused,
    UnknownModel,
    Unreachable,
    transient,
)
from .messages import Image, Message, Part, Text, Thinking, ToolCall, ToolDefinition, ToolReturn
from .model import Model
from .prices import ModelInfo, Prices
from .request import Finish, Prompt, Reply, Request, Usage
from .scripted import ReplayModel, ScriptedModel
from .structured import Returning

__all__ = [
    "AuthError", "BadRequest", "Budget", "BudgetExhausted", "ContentFiltered", "ContextTooLong", "Embedder",
    "Embeddings", "Finish", "Image", "InvalidOutput", "InvalidReply", "Message", "Model", "ModelError", "ModelInfo",
    "NoRequests", "NotScripted", "Overloaded", "Part", "Prices", "Prompt", "QuotaExceeded", "RateLimited", "Refused",
    "ReplayModel", "Reply", "Request", "Returning", "ScriptedModel", "Spent", "Text", "Thinking", "ToolCall",
    "ToolDefinition", "ToolReturn", "UnknownModel", "Unreachable", "Usage", "no_requests", "spent", "transient",
]  # fmt: skip
