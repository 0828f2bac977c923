"""The prices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import cart, stock  # noqa: TID252

if TYPE_CHECKING:
    from .orders import settle  # noqa: TID252


def price(item: str) -> int:
    """Return the price of an item, half of it if there is plenty."""
    full = len(item)
    return full // 2 if stock.left(item) > 10 and full > 1 else full


def refund(items: cart.Cart, settled: settle | None = None) -> int:
    return -items.total()
