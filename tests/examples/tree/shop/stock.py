"""What is left. It needs the orders, but only when it is asked."""


def left(item):
    """Return how many are left."""
    from shop.orders import ORDERED

    return 100 - ORDERED.get(item, 0)
