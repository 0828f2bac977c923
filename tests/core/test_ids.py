"""Ids: from the operating system, so that nothing can make two runs share one."""

import random

from mai.core.ids import new_id


def test_ids_are_128_bits_in_hexadecimal_and_differ_whatever_the_seed() -> None:
    ids = set()
    for _ in range(100):
        random.seed(1)
        ids.add(new_id())
    assert len(ids) == 100
    assert {len(one) for one in ids} == {32}
    assert all(int(one, 16) >= 0 for one in ids)
