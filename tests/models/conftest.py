"""No test of models finds a key or an address in its environment."""

import pytest

from mai.models.vendors import VENDORS


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the vendors' variables away."""
    for vendor in VENDORS.values():
        for name in (*vendor.keys, vendor.address):
            if name:
                monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
