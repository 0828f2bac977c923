"""Who sends: the resource of all spans."""

import os
import sys
from pathlib import Path

from opentelemetry.sdk.resources import Resource

__all__ = ["resource"]


def resource(service_name: str | None = None) -> Resource:
    """Return what OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME say; nameless, it is called after the program."""
    told = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    program = Path(sys.argv[0]).stem if sys.argv else ""
    name = service_name or (None if told else "mai" if program in ("", "-c", "-m", "__main__") else program)
    return Resource.create({} if name is None else {"service.name": name})
