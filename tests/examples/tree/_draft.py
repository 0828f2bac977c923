from shop.cart import Cart


def sketch(items):
    return settle_later(lambda: Cart(items).total() if items else 0)


def settle_later(work):
    return work()
