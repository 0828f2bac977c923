"""`mai worker --restate` as a process of its own, on a real server."""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mai.core.ids import new_id
from mai.durable.restate import RemoteRun, RestateRunner
from tests.cli.support import command, environment
from tests.durable.restate_servers import Servers, free_port

pytestmark = pytest.mark.slow

SHOP = """
import asyncio
from mai import module, wait_for

@module
async def price(n: int) -> int:
    return n * {factor}

@module
async def slow(n: int) -> int:
    print("slow begins", flush=True)
    await asyncio.sleep(1.5)
    print("slow ends", flush=True)
    return n

@module(flow=True)
async def sell(n: int) -> str:
    paid = await wait_for("paid", int)
    return f"{{paid}} of {{await price(n)}}"

sell = sell.with_(name="sell-{name}")
slow = (slow >> price >> slow).with_(name="slow-{name}")
"""


class Worker:
    """A process of `mai worker`."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            command("worker", *words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env=environment(),
        )  # fmt: skip

    def until(self, text: str) -> str:
        """Read its standard error up to the line that has *text*."""
        assert self.process.stderr is not None
        said = ""
        for line in self.process.stderr:
            said += line
            if text in line:
                return line
        raise AssertionError(f"it ended without {text!r}: {said}")

    def ended(self, *signals: signal.Signals) -> tuple[int, str, str]:
        """Send *signals*; return its exit code, and what else it said."""
        for one in signals:
            self.process.send_signal(one)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


class Shop:
    """Files of modules with names that no other test has, and workers that serve them."""

    def __init__(self, folder: Path, server: Servers) -> None:
        self.folder, self.server, self.name = folder, server, new_id()[:12]
        self.workers: list[Worker] = []

    def worker(self, port: int, factor: int, *modules: str) -> Worker:
        """Start a worker of a version of the code."""
        file = self.folder / f"shop_{factor}.py"
        file.write_text(SHOP.format(factor=factor, name=self.name), encoding="utf-8")
        address = "--restate", self.server.admin[0], "--ingress", self.server.ingress[0], "--port", str(port)
        self.workers.append(Worker(*address, *(f"{file}:{module}" for module in modules)))
        return self.workers[-1]

    def runner(self) -> RestateRunner:
        return RestateRunner(self.server.ingress, admin=self.server.admin)

    def deployments(self) -> list[str]:
        """Return the addresses at which the server knows the modules of this shop."""
        sql = "select d.endpoint from sys_deployment d join sys_service s on s.deployment_id = d.id"
        sql = f"{sql} where s.name = 'sell-{self.name}'"
        return [row["endpoint"] for row in self.server.query(sql)]


@pytest.fixture
def shop(tmp_path: Path, server: Servers) -> Iterator[Shop]:
    shop = Shop(tmp_path, server)
    yield shop
    for worker in shop.workers:
        worker.process.kill()
        worker.process.communicate()


async def waits(run: RemoteRun[Any]) -> None:
    """Wait until a run waits for its signal."""
    while not await run._runner._client.query(f"select key from sys_promise where service_key = '{run.run_id}'"):
        await asyncio.sleep(0.05)


async def test_new_code_is_a_new_deployment_and_a_run_ends_with_the_code_that_it_began_with(shop: Shop) -> None:
    first, second = free_port(), free_port()
    shop.worker(first, 10, "sell").until(f"serving sell-{shop.name} from {shop.server.admin[0]}")
    old_id, young_id = f"{shop.name}-old", f"{shop.name}-new"
    async with shop.runner() as runner:
        old = await runner.start(f"sell-{shop.name}", {"n": 1}, run_id=old_id)
        await waits(old)
        before = shop.deployments()
        shop.worker(second, 20, "sell").until("serving")
        after = shop.deployments()
        new = await runner.start(f"sell-{shop.name}", {"n": 1}, run_id=young_id)
        for run in (old, new):
            await run.signal("paid", 5)
        assert (await old.result(), await new.result()) == ("5 of 10", "5 of 20")
    assert [f":{first}/" in one for one in before] == [True]
    assert [f":{second}/" in one for one in after] == [True], "new runs go to the new one"


async def test_the_same_code_at_the_same_address_is_no_new_deployment(shop: Shop) -> None:
    port = free_port()
    for _ in range(2):
        worker = shop.worker(port, 10, "sell")
        worker.until("serving")
        known = shop.deployments()
        assert worker.ended(signal.SIGTERM)[0] == 0
    assert len(known) == 1
    uri = known[0].rpartition("/")[0]
    rows = shop.server.query(f"select id from sys_deployment where endpoint like '{uri}%'")
    assert len(rows) == 1


async def test_a_term_signal_lets_the_step_end_and_leaves_the_rest_to_the_next_worker(shop: Shop) -> None:
    port = free_port()
    worker = shop.worker(port, 10, "slow")
    worker.until("serving")
    async with shop.runner() as runner:
        run = await runner.start(f"slow-{shop.name}", {"n": 3}, run_id=f"{shop.name}-slow")
        assert worker.process.stdout is not None
        assert await asyncio.to_thread(worker.process.stdout.readline) == "slow begins\n"
        code, out, err = await asyncio.to_thread(worker.ended, signal.SIGTERM)
        assert (code, out) == (0, "slow ends\n"), err
        assert "SIGTERM, waiting for the runs that go on" in err
        assert (await run.info()).status in ("running", "waiting")
        other = shop.worker(port, 10, "slow")
        other.until("serving")
        assert await run.result() == 30
        code, out, err = await asyncio.to_thread(other.ended, signal.SIGTERM)
        assert (code, out) == (0, "slow begins\nslow ends\n"), err


async def test_a_second_signal_leaves_the_step_to_the_next_worker(shop: Shop) -> None:
    port = free_port()
    worker = shop.worker(port, 10, "slow")
    worker.until("serving")
    async with shop.runner() as runner:
        await runner.start(f"slow-{shop.name}", {"n": 3}, run_id=f"{shop.name}-slow")
        assert worker.process.stdout is not None
        await asyncio.to_thread(worker.process.stdout.readline)
        os.kill(worker.process.pid, signal.SIGTERM)
        await asyncio.to_thread(worker.until, "SIGTERM")
        code, out, _ = await asyncio.to_thread(worker.ended, signal.SIGTERM)
        assert (code, out) == (130, "")


async def test_a_run_is_looked_at_and_told_things_by_the_command(shop: Shop) -> None:
    address = "--restate", shop.server.admin[0], "--ingress", shop.server.ingress[0]
    run_id, target = f"{shop.name}-one", f"sell-{shop.name}"

    def runs(*words: str) -> str:
        done = subprocess.run(
            command("runs", *words, *address), capture_output=True, text=True, env=environment(), check=True, timeout=60
        )
        return done.stdout

    worker = shop.worker(free_port(), 10, "sell")
    worker.until("serving")
    async with shop.runner() as runner:
        run = await runner.start(target, {"n": 1}, run_id=run_id)
        await waits(run)
        assert f"{run_id}  {target}" in await asyncio.to_thread(runs, "list")
        worker.ended(signal.SIGTERM)  # nobody serves it now
        assert await asyncio.to_thread(runs, "signal", run_id, "paid", "7") == f"{run_id}: has the signal 'paid'\n"
        shop.worker(free_port(), 10, "sell").until("serving")  # and its own address is gone
        assert (await (await runner.find(run_id)).info()).status in ("running", "waiting")
        assert await asyncio.to_thread(runs, "cancel", run_id) == f"{run_id}: is asked to end\n"


Words = Callable[[Servers, Path], tuple[str, ...]]
WRONG: dict[str, tuple[Words, int, str]] = {
    "a server that is not there": (
        lambda server, file: ("--restate", f"http://127.0.0.1:{free_port()}", "--patience", "0.5", f"{file}:sell"),
        1, "mai worker: No server answers at http://127.0.0.1:",
    ),
    "an address that is none": (
        lambda server, file: ("--restate", "localhost", f"{file}:sell"), 2, "--restate localhost: give the address",
    ),
    "something else than a server": (
        lambda server, file: ("--restate", server.ingress[0], f"{file}:sell"), 1, "does not take the worker at",
    ),
    "an address that the server cannot reach": (
        lambda server, file: ("--restate", server.admin[0], "--advertised", f"http://127.0.0.1:{free_port()}",
                              f"{file}:sell"), 1, "does not take the worker at",
    ),
    "a target that is no module": (
        lambda server, file: ("--restate", server.admin[0], f"{file}:SHOP"), 2, "SHOP",
    ),
    "a file that is not there": (
        lambda server, file: ("--restate", server.admin[0], "nothing.py:sell"), 2, "nothing.py",
    ),
    "two journals": (
        lambda server, file: ("--restate", server.admin[0], "--db", "runs.db", f"{file}:sell"), 2, "give either --db",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_served_is_told_and_ends_the_worker(what: str, server: Servers, tmp_path: Path) -> None:
    words, code, message = WRONG[what]
    file = tmp_path / "shop.py"
    file.write_text(SHOP.format(factor=1, name=new_id()[:12]) + "SHOP = 1\n", encoding="utf-8")
    ended = Worker("--port", "0", *words(server, file)).ended()
    assert ended[0] == code, ended
    assert message in ended[2]
    assert len(ended[2].splitlines()) == 1, ended[2]


def test_a_port_that_somebody_has_is_told(server: Servers, tmp_path: Path) -> None:
    file = tmp_path / "shop.py"
    file.write_text(SHOP.format(factor=1, name=new_id()[:12]), encoding="utf-8")
    with socket.socket() as one:  # which does not share it, as another worker would
        one.bind(("127.0.0.1", 0))
        one.listen()
        port = one.getsockname()[1]
        code, _, err = Worker("--port", str(port), "--restate", server.admin[0], f"{file}:sell").ended()
    assert code == 2
    assert f"cannot listen at 127.0.0.1:{port}: Address already in use" in err
