"""Ctrl-C, pressed by a step itself, so that no test has to wait for the right moment."""

import asyncio
import signal
import threading
from collections.abc import Callable

import pytest

from mai.cli.interrupt import Interrupt, handling_sigint
from tests.cli.support import Done

Mai = Callable[..., Done]

HEARD = "mai run: interrupted, waiting for cleanup (Ctrl-C again cancels that too)"


def test_an_interrupt_lets_cleanup_run_and_exits_with_130(mai: Mai) -> None:
    code, out, err = mai("run", "flow.py:interrupt", "x")
    assert (code, out) == (130, "")
    assert err.splitlines() == [HEARD, "cleaning up"]


def test_an_interrupted_run_shows_its_trace(mai: Mai) -> None:
    code, _, err = mai("run", "flow.py:interrupt", "x", "--trace")
    assert code == 130
    assert err.splitlines()[2].startswith("⊘ interrupt ")


def test_a_second_interrupt_cancels_the_cleanup(mai: Mai) -> None:
    code, out, err = mai("run", "flow.py:interrupt", "again")
    assert (code, out) == (130, "")
    assert err.splitlines() == [HEARD, "cleaning up"]


def test_a_cleanup_that_fails_is_told(mai: Mai) -> None:
    code, _, err = mai("run", "flow.py:interrupt", "fail")
    assert code == 130
    assert err.splitlines()[:3] == [HEARD, "cleaning up", "mai run: ValueError: the cleanup failed"]


def test_an_interrupt_does_not_wait_for_a_worker_thread(mai: Mai) -> None:
    assert mai("run", "flow.py:press", "x").code == 130


def test_an_interrupt_while_the_file_is_imported_is_one_too(mai: Mai, here: object) -> None:
    with open("early.py", "w", encoding="utf-8") as file:
        file.write("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    assert [*mai("run", "early.py:x")] == [130, "", "mai run: interrupted\n"]


def test_a_step_that_cancels_itself_has_failed(mai: Mai) -> None:
    code, _, err = mai("run", "flow.py:give_up", "x")
    assert code == 1
    assert err.startswith("mai run: RuntimeError: a step cancelled the run")


def test_a_deadline_is_told_with_the_option_it_came_from(mai: Mai) -> None:
    code, out, err = mai("run", "flow.py:wait", "x", "--timeout", "0.01")
    assert (code, out) == (1, "")
    assert err.startswith("mai run: DeadlineExceeded: ")
    assert "  (the deadline is that of --timeout 0.01)" in err
    code, _, err = mai("run", "flow.py:brief", "x", "--timeout", "60")
    assert (code, "--timeout" in err) == (1, False)


def test_the_handler_of_sigint_is_as_before_afterwards() -> None:
    with handling_sigint(Interrupt()):
        assert isinstance(signal.getsignal(signal.SIGINT), Interrupt)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_somebody_else_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with handling_sigint(Interrupt()):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_another_thread_handles_no_signals() -> None:
    seen: list[object] = []

    def look() -> None:
        with handling_sigint(Interrupt()):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


def test_without_a_run_an_interrupt_is_pythons() -> None:
    with pytest.raises(KeyboardInterrupt):
        Interrupt()(signal.SIGINT, None)


def test_a_run_is_driven_to_its_value() -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    assert asyncio.run(Interrupt().drive(answer())) == 42
