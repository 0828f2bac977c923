"""The clock seam: three readings that a simulation may replace."""

import time

from mai.core.clock import clock
from tests.clocks import replaced


def test_the_readings_are_those_of_the_system() -> None:
    assert clock.now() <= time.monotonic() <= clock.now()
    assert clock.ticks() <= time.perf_counter_ns() <= clock.ticks()
    assert abs(clock.wall() - time.time()) < 60


def test_a_replaced_clock_is_put_back_also_after_an_error() -> None:
    before = clock.now, clock.ticks, clock.wall
    try:
        with replaced(lambda: 12.5):
            assert (clock.now(), clock.ticks(), clock.wall()) == (12.5, 12_500_000_000, 12.5)
            raise KeyError
    except KeyError:
        pass
    assert (clock.now, clock.ticks, clock.wall) == before
