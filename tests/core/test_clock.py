"""The clock seam: three readings of the system, which `mai.testing` may exchange."""

import time

from mai.core.clock import clock


def test_the_readings_are_those_of_the_system() -> None:
    assert clock.now() <= time.monotonic() <= clock.now()
    assert clock.ticks() <= time.perf_counter_ns() <= clock.ticks()
    assert abs(clock.wall() - time.time()) < 60
