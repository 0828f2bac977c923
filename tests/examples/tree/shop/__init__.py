"""A small shop, so that a review of it has answers that are known."""

from shop.cart import Cart

__all__ = ["Cart"]
