"""Time and chance as a test wants them."""

import pytest

from mai import Context, Retry
from mai.core.clock import clock
from mai.core.ids import chance
from mai.errors import ConfigError
from mai.testing import FakeClock, fixed_chance


def test_the_clock_goes_when_it_is_told_to() -> None:
    with FakeClock(100.0, wall=5e8) as fake, Context.scope(timeout=30):
        assert (clock.now(), clock.ticks(), clock.wall()) == (100.0, 100_000_000_000, 5e8)
        fake.advance(20)
        assert (clock.now(), clock.wall()) == (120.0, 5e8 + 20)
        assert Context.get().deadline == 130.0
        fake.wall -= 86_400
        assert (clock.now(), clock.wall()) == (120.0, 5e8 + 20 - 86_400)
    assert FakeClock(7.0).wall == 7.0


def test_the_clock_is_put_back_also_after_an_error_and_blocks_may_be_nested() -> None:
    before = clock.now, clock.ticks, clock.wall
    with FakeClock(1.0):
        with pytest.raises(KeyError), FakeClock(2.0):
            {}[clock.now()]
        assert clock.now() == 1.0
    assert (clock.now, clock.ticks, clock.wall) == before


def test_the_clock_does_not_go_back() -> None:
    with pytest.raises(ConfigError, match="would go back"):
        FakeClock().advance(-1)


@pytest.mark.parametrize("value", [0.0, 0.25, 1.0])
def test_chance_is_what_it_is_told_to_be(value: float) -> None:
    before = chance.draw
    with fixed_chance(value):
        assert Retry(3, base=8.0).pause(1, OSError()) == 8.0 * value
    assert chance.draw == before


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_chance_outside_of_its_bounds_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match="is not in"), fixed_chance(value):
        pass
