"""mai.middleware: what stands around calls and what they give. `Redactor` takes secrets out of texts."""

from .redact import RedactedStream, Redactor

__all__ = ["RedactedStream", "Redactor"]
