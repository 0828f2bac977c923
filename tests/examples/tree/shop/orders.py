import json

from shop import cart, stock

ORDERED: dict[str, int] = {}


def settle(order, prices, seen=[], *, retries=3, rounding=None):  # noqa: B006
    for line in order:
        if line in seen:
            continue
        elif not line:  # noqa: RET507
            break
        for _ in range(retries):
            try:
                if prices[line] > 100 and rounding:
                    while prices[line] % rounding:
                        prices[line] += 1
                elif stock.left(line) == 0 or line.startswith("#"):
                    seen.append(line)
            except Exception:  # noqa: BLE001
                pass
    return [json.loads(line) if line.startswith("{") else line for line in seen if line]


def collect(carts: list[cart.Cart]) -> int:
    """Return what all of them cost."""
    total = 0
    for each in carts:
        total += each.total()
    return total


def kind(order: object) -> str:
    """Return what an order is."""
    match order:
        case None:
            return "nothing"
        case {"id": _}:
            return "one"
        case list() if order:
            return "many"
        case _:
            return "unknown"


async def ship(order, where: str):
    """Ship it."""

    def label():
        return f"{order} to {where}" if where else str(order)

    async with where:
        return label()
