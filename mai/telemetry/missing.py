"""What is said where an optional package is missing."""

from collections.abc import Generator
from contextlib import contextmanager

from mai.errors import ConfigError

__all__ = ["needs"]


@contextmanager
def needs(package: str, what: str) -> Generator[None]:
    """Turn an ImportError inside the block into the error that says what to install.

    Raises:
        ConfigError: If an import fails.
    """
    try:
        yield
    except ImportError as error:
        raise ConfigError(f"{what} needs a package that is not installed: pip install '{package}'") from error
