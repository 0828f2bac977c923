"""The cart; it imports the prices, and the prices import it."""

from .pricing import price  # noqa: TID252


class Cart:
    """Holds what a customer wants."""

    def __init__(self, items: list[str]) -> None:
        self.items = items

    def total(self) -> int:
        """Return what everything costs."""
        return sum(price(item) for item in self.items)

    def add(self, item):
        self.items.append(item)

    @property
    def empty(self) -> bool:
        """Whether nothing is in it."""
        return not self.items

    @empty.setter
    def empty(self, value: bool) -> None:
        if value:
            self.items.clear()
