"""The input of a step as a pydantic model, made from its signature: for schemas, the command line and payloads."""

import warnings
from collections.abc import Mapping
from inspect import Parameter
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from ..values.signature import Signature


def model_of(signature: Signature, defaults: Mapping[str, Any]) -> type[BaseModel]:
    """Return the model with a field for each parameter (``In``), with *defaults* of ``with_``; without them, one."""
    if signature.model is not None and not defaults:
        return signature.model
    fields: dict[str, Any] = {}
    for p in signature.params.values():
        tp: Any = Any if p.annotation is p.empty else p.annotation
        default = defaults.get(p.name, ... if p.default is p.empty else p.default)
        if p.kind is p.VAR_POSITIONAL:
            tp, default = tuple.__class_getitem__((tp, ...)), ()
        if p.kind is not p.VAR_KEYWORD:
            alias = p.name.startswith("_")  # pydantic keeps such names to itself
            fields[f"p{p.name}" if alias else p.name] = (tp, Field(default, alias=p.name) if alias else default)
    open_ended = any(p.kind is Parameter.VAR_KEYWORD for p in signature.params.values())
    extra: Any = "allow" if open_ended else "forbid"
    config = ConfigDict(arbitrary_types_allowed=True, extra=extra, protected_namespaces=(), title=signature.owner)
    with warnings.catch_warnings():  # a parameter may well be called like a method of BaseModel
        warnings.simplefilter("ignore", UserWarning)
        made: type[BaseModel] = create_model(f"{signature.owner}.In", __config__=config, **fields)
    if not defaults:
        signature.model = made
    return made
