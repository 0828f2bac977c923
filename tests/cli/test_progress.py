"""The census behind the live display: what it counts, and that its work is bounded."""

import fcntl
import os
import pty
import random
import re
import struct
import sys
import termios
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mai import Parallel, capture, module
from mai.cli.progress import Census, live, picture
from mai.testing import FakeClock
from tests.cli.support import Done


@dataclass(eq=False, repr=False)
class Handle:
    """The fields of a TraceHandle that the census reads; it counts how often it was asked whether it runs."""

    name: str = "step"
    kind: str = "module"
    attempt: int = 1
    start_ns: int | None = 0
    parent: "Handle | None" = None
    children: list[Any] = field(default_factory=list)
    dropped: int = 0
    attributes: dict[str, Any] = field(default_factory=dict)
    ended: bool = False
    ok: bool = True
    looks: int = 0

    @property
    def outcome(self) -> str:
        self.looks += 1
        return "ok" if self.ended else "running"

    def begin(self, name: str = "step", **more: Any) -> "Handle":
        child = Handle(name, parent=self, **more)
        self.children.append(child)
        return child


def everything(census: Census) -> None:
    census.update()
    while not census.complete:
        census.update()


def names(census: Census) -> list[str]:
    return [handle.name for handle in census.steps]


def test_what_waits_for_a_call_inside_is_not_shown_as_running() -> None:
    runs: list[Any] = []
    census = Census(runs)
    everything(census)
    assert (census.done, census.running) == (0, 0)
    root = Handle("root")
    runs.append(root)
    first, second = root.begin("first", start_ns=1), root.begin("second", start_ns=2)
    inner = second.begin("inner", start_ns=3)
    everything(census)
    assert (census.done, census.running, names(census)) == (0, 2, ["first", "inner"])
    first.ended = inner.ended = True
    everything(census)
    everything(census)
    assert (census.done, names(census)) == (2, ["second"])
    second.ended = root.ended = True
    everything(census)
    assert (census.done, census.running) == (4, 0)


def test_the_longest_running_steps_are_shown() -> None:
    root = Handle("root")
    for n in range(20):
        root.begin(str(n), start_ns=100 - n)
    census = Census([root])  # type: ignore[list-item]
    everything(census)
    assert census.running == 20
    assert names(census) == [str(n) for n in range(19, 11, -1)]


def test_a_fan_out_that_knows_its_width_is_counted() -> None:
    root = Handle("root")
    fan = root.begin("Parallel", attributes={"mai.parallel.width": 2_000}, dropped=7)
    for n in range(1_000):
        fan.begin().ended = n < 900
    census = Census([root])  # type: ignore[list-item]
    everything(census)
    assert census.fans() == [("Parallel", 907, 2_000)]
    fan.ended = True
    everything(census)
    assert census.fans() == []


def test_a_loop_counts_its_turns_and_a_map_of_unknown_length_its_items() -> None:
    root = Handle("root")
    for name, facts in (
        ("Loop", {"mai.loop.max_iters": 9, "mai.loop.turns": 2}), ("Fresh", {"mai.loop.max_iters": 9}),
        ("Map", {"mai.parallel.limit": 4}),
    ):  # fmt: skip
        root.begin(name, attributes=facts).begin().ended = True
    census = Census([root])  # type: ignore[list-item]
    everything(census)
    assert census.fans() == [("Map", 1, None), ("Fresh", 0, 9), ("Loop", 2, 9)]
    lines = picture(census, "root", 1.0).plain.split("\n")
    assert lines[1:4] == ["  1 Map", "  0/9 Fresh", "  2/9 Loop"]


def test_a_map_is_counted_by_its_name_or_that_of_its_step() -> None:
    root = Handle("root")
    for name in ("Map", "files"):
        many = root.begin(name, kind="map", attributes={"mai.parallel.limit": 4, "mai.parallel.width": 140})
        many.begin("ParseFile").ended = True
    many.attributes["mai.map.items"] = 12  # which a Map with progress tells, however many children are dropped
    census = Census([root])  # type: ignore[list-item]
    everything(census)
    assert picture(census, "root", 1.0).plain.split("\n")[1:3] == ["  12/140 files", "  1/140 ParseFile"]


def test_attempts_are_shown_as_those_of_their_call_and_are_no_calls() -> None:
    root = Handle("root")
    chat = root.begin("Chat", attributes={"mai.retry.max": 3})
    first = chat.begin("attempt", kind="attempt", attributes={"mai.retry.attempt": 1})
    census = Census([root])  # type: ignore[list-item]

    def steps() -> list[str]:
        everything(census)
        with FakeClock(0.0):
            return [line.rpartition("  ")[0] for line in picture(census, "root", 1.0).plain.split("\n")[1:]]

    assert steps() == ["  • Chat"]
    first.ended, chat.attributes = True, {**chat.attributes, "mai.retry.count": 1}
    everything(census)
    assert steps() == ["  • Chat, 1 of 3 failed, waits to try again"]
    second = chat.begin("attempt", kind="attempt", attempt=2)
    assert steps() == ["  • Chat, attempt 2 of 3"]
    second.ended = chat.ended = root.ended = True
    everything(census)
    assert census.done == 2


def test_a_fan_out_with_attempts_is_counted_once() -> None:
    root = Handle("root")
    many = root.begin("Map", kind="map", attributes={"mai.parallel.limit": 4, "mai.retry.max": 2})
    many.begin("attempt", kind="attempt", attributes={"mai.parallel.width": 9}).begin("ParseFile").ended = True
    census = Census([root])  # type: ignore[list-item]
    everything(census)
    assert census.fans() == [("ParseFile", 1, 9)]


def test_an_update_looks_at_no_more_than_its_budget() -> None:
    root = Handle("root")
    everyone = [root]
    for _ in range(50):
        fan = root.begin()
        everyone += [fan, *(fan.begin() for _ in range(50))]
    census = Census([root], budget=100)  # type: ignore[list-item]
    for _ in range(200):
        before = sum(handle.looks for handle in everyone)
        census.update()
        assert sum(handle.looks for handle in everyone) - before <= 2 * 100
    assert not census.complete
    assert all(handle.looks for handle in everyone)


@given(st.randoms(use_true_random=False), st.integers(1, 30), st.integers(1, 60))
def test_every_call_is_counted_once_however_small_the_budget(chance: random.Random, budget: int, calls: int) -> None:
    root = Handle("root")
    running, everyone = [root], [root]
    census = Census([root], budget)  # type: ignore[list-item]
    while running:
        if len(everyone) < calls and chance.random() < 0.6:
            everyone.append(chance.choice(running).begin())
            running.append(everyone[-1])
        else:
            leaves = [handle for handle in running if all(child.ended for child in handle.children)]
            ended = chance.choice(leaves)
            ended.ended = True
            running.remove(ended)
        if chance.random() < 0.5:
            census.update()
            assert census.done <= len(everyone) - len(running)
    everything(census)
    assert census.done == len(everyone)
    assert census.running == 0


def test_the_calls_of_a_real_run_are_counted() -> None:
    @module
    async def double(n: int) -> int:
        return 2 * n

    with capture() as traced:
        census = Census(traced.runs)
        assert Parallel(double, double, double).run(2) == (4, 4, 4)
    everything(census)
    assert census.done == len([*traced.runs[0].walk()]) == 4


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, run: Callable[[], Done]) -> tuple[Done, str]:
    """Call *run* with a terminal of 60 columns as standard error; return what it gave and what the terminal showed."""
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    shown: list[bytes] = []
    reader = threading.Thread(target=lambda: shown.extend(iter(lambda: read(master), b"")))
    reader.start()
    with os.fdopen(slave, "w", encoding="utf-8") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        done = run()
    reader.join()
    os.close(master)
    return done, b"".join(shown).decode().replace("\r\n", "\n")


def read(master: int) -> bytes:
    try:
        return os.read(master, 65_536)
    except OSError:  # how Linux says that the other side has closed
        return b""


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", text)


def test_a_terminal_shows_what_runs_and_then_how_it_ended(
    mai: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    done, screen = on_a_terminal(monkeypatch, lambda: mai("run", "flow.py:fast", "x", "--trace"))
    assert (done.code, done.out) == (0, "9\n")
    frames, _, rest = screen.rpartition("\x1b[?25h")
    assert re.search(r"Sequential  \d done, \d running, 0\.\d s", plain(frames))
    lines = plain(rest).strip("\n").split("\n")
    assert re.fullmatch(r"✓ Sequential  [\d.]+ (µs|ms|s), 4 calls", lines[0])
    assert lines[1].startswith("✓ Sequential ")
    assert max(map(len, lines)) <= 60


def test_the_display_shows_the_steps_that_run_longest() -> None:
    root = Handle("root")
    fan = root.begin("Parallel", attributes={"mai.parallel.width": 30})
    for n in range(12):
        fan.begin(f"step \x1b[2J{n}", start_ns=n * 10**9).ended = n == 0
    census = Census([root])  # type: ignore[list-item]
    everything(census)
    with FakeClock(72.0):
        lines = picture(census, "root", 72.3).plain.split("\n")
    assert lines[0][1:] == " root  1 done, 11 running, 1 m 12 s"
    assert lines[1] == "  1/30 Parallel"
    assert lines[2] == r"  • step \x1b[2J1  1 m 11 s"
    assert lines[-2:] == [r"  • step \x1b[2J8  1 m 04 s", "  … and 3 more"]


def test_the_display_of_a_single_step_has_one_line() -> None:
    census = Census([Handle("root")])  # type: ignore[list-item]
    everything(census)
    assert picture(census, "root", 0.25).plain[1:] == " root  0 done, 1 running, 0.2 s"


def test_the_last_line_counts_all_calls_however_many(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Handle("root", ended=True)
    for _ in range(5_000):
        root.begin().ended = True

    def run() -> Done:
        with live([root], "root"):  # type: ignore[list-item]
            return Done(0, "", "")

    _, screen = on_a_terminal(monkeypatch, run)
    assert re.search(r"root  .*s, 5,001 calls\n$", plain(screen))


def test_a_failed_run_on_a_terminal_says_why(mai: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    done, screen = on_a_terminal(monkeypatch, lambda: mai("run", "flow.py:fail", "x"))
    assert done.code == 1
    end = plain(screen.rpartition("\x1b[?25h")[2])
    assert "mai run: ValueError: cannot take 'x'\n" in end
    assert "✓" not in end
