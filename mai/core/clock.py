"""The clock seam: the only file that reads a clock. Simulation and tests replace the attributes of `clock`."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Clock:  # so the readings are attributes of the instance, which Python finds quicker than those of its class
    """Three readings: ``now`` [s, monotonic], ``ticks`` [ns, monotonic, fine] and ``wall`` [s since the epoch]."""

    now: Callable[[], float] = time.monotonic
    ticks: Callable[[], int] = time.perf_counter_ns
    wall: Callable[[], float] = time.time


clock: Clock = Clock()
