"""Settings for all tests: the event loop, and how hard Hypothesis looks."""

import gc
import logging
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

# No deadline: on a loaded machine a slow example says nothing about the code.
settings.register_profile("default", deadline=None)
settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "mutants", settings.get_profile("ci"), max_examples=50, phases=[Phase.explicit, Phase.generate]
)
settings.register_profile("deep", deadline=None, max_examples=2_000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# A shell without job control starts what runs in its background with SIGINT ignored, and every program that the tests
# start would inherit that: a Ctrl-C would reach nobody, and the tests of it would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Leave what is loaded by now out of each garbage collection: laws ask for thousands of them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Every async test runs on asyncio, in debug mode."""
    return "asyncio", {"debug": True}


class _Listed(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@pytest.fixture(autouse=True)
def failed_detaches() -> Iterator[list[str]]:
    """Fail every test in which OpenTelemetry logs "Failed to detach context"."""
    log, heard = logging.getLogger("opentelemetry.context"), _Listed()
    log.addHandler(heard)
    yield heard.said
    log.removeHandler(heard)
    assert not heard.said
