"""The client, against a server that does what a real one was seen to do."""

import asyncio
import socket
import sys

import pytest

from mai.durable.restate.client import End, RestateClient, addresses
from mai.durable.restate.tables import row_of
from mai.errors import ConfigError, JournalError, UnknownRun
from tests.durable.restate.fake import FakeRestate, serving


def nobody() -> str:
    """Return an address where nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{one.getsockname()[1]}"


async def test_a_run_is_begun_once() -> None:
    fake = FakeRestate("double")
    async with serving(fake) as url, RestateClient(url, url) as client:
        first = await client.submit("double", "a", b'{"n":1}', delay=1.5, headers={"x-mai-timeout": "3"})
        assert first == ("inv_double_a", True)
        assert await client.submit("double", "a", b'{"n":2}') == ("inv_double_a", False)
        run = fake.runs["double", "a"]
        assert (run.input, run.delay, run.headers["x-mai-timeout"]) == (b'{"n":1}', "1500ms", "3")


async def test_what_came_of_a_run_is_waited_for_or_looked_at() -> None:
    fake = FakeRestate("double")
    async with serving(fake) as url, RestateClient(url, url) as client:
        await client.submit("double", "a", b"{}")
        waits = asyncio.ensure_future(client.attach("double", "a"))
        assert await client.output("double", "a") is None
        fake.runs["double", "a"].finish(200, 42)
        assert await waits == End(b"42") == await client.output("double", "a")


async def test_a_failure_comes_with_what_was_sent_with_it() -> None:
    fake = FakeRestate("double")
    async with serving(fake) as url, RestateClient(url, url) as client:
        await client.submit("double", "a", b"{}")
        fake.runs["double", "a"].finish(500, {"code": 500, "message": "Boom: no", "metadata": {"mai": "{}"}})
        assert await client.attach("double", "a") == End(None, 500, "Boom: no", {"mai": "{}"})


@pytest.mark.parametrize("code", [429, 500, 503])
async def test_what_a_run_failed_of_is_no_trouble_of_the_cluster(code: int) -> None:
    fake = FakeRestate("double")
    async with serving(fake) as url, RestateClient(url, url) as client:
        await client.submit("double", "a", b"{}")
        fake.runs["double", "a"].finish(code, {"code": code, "message": "External error"})
        assert await client.attach("double", "a") == End(None, code, "External error")


async def test_a_run_that_is_not_there_is_told_as_such() -> None:
    async with serving(FakeRestate("double")) as url, RestateClient(url, url) as client:
        for look in (client.attach, client.output):
            with pytest.raises(UnknownRun, match="no run 'a' of 'double'") as told:
                await look("double", "a")
            assert told.value.run_id == "a"
        assert await row_of(client, "double", "a") is None


async def test_a_module_that_no_worker_serves_is_told_with_those_that_are_served() -> None:
    async with serving(FakeRestate("double", "halve")) as url, RestateClient(url, url) as client:
        with pytest.raises(
            ConfigError, match="No worker has registered 'dobule' with the server; it knows double, halve"
        ):
            await client.submit("dobule", "a", b"{}")
        with pytest.raises(ConfigError, match="No worker has registered 'dobule'"):
            await client.tell("dobule", "a", "signal", b"{}")


@pytest.mark.parametrize("key", ["a/b", "ü ?#%", "o'brien", "x&y=z;"])
async def test_any_text_may_be_the_id_of_a_run(key: str) -> None:
    fake = FakeRestate("do'uble")
    async with serving(fake) as url, RestateClient(url, url) as client:
        await client.submit("do'uble", key, b"{}")
        found = await row_of(client, "do'uble", key)
        assert found is not None
        assert fake.runs["do'uble", key].id == found["id"]
        assert await client.output("do'uble", key) is None


async def test_an_invocation_is_cancelled_killed_or_resumed_unless_it_has_ended() -> None:
    fake = FakeRestate("double")
    async with serving(fake) as url, RestateClient(url, url) as client:
        name, _ = await client.submit("double", "a", b"{}")
        other, _ = await client.submit("double", "b", b"{}")
        assert await client.resume(name)
        assert await client.cancel(name)
        assert not await client.cancel(name)
        assert await client.kill(other)
        assert (await client.attach("double", "b")).message == "killed"
        with pytest.raises(JournalError, match="does not exist"):
            await client.cancel("inv_none")


async def test_a_message_that_may_be_lost_has_one_key_for_all_its_sendings() -> None:
    fake = FakeRestate("double")
    async with serving(fake) as url, RestateClient(url, url) as client:
        await client.submit("double", "a", b"{}")
        fake.troubles = [503]
        assert await client.tell("double", "a", "signal", b'{"name":"x"}') == b"true"
        assert await client.tell("double", "a", "about", b"{}", once=False) == b"null"
        assert len(fake.keys) == 2
        assert fake.keys[0]
        assert not fake.keys[1]


async def test_a_worker_is_registered_or_refused_with_the_reason() -> None:
    async with serving(FakeRestate()) as url, RestateClient(url, url) as client:
        assert (await client.register("http://127.0.0.1:9080"))["id"] == "dp_1"
        with pytest.raises(JournalError, match="does not take the worker at http://nobody/nobody: cannot discover it"):
            await client.register("http://nobody/nobody")


async def test_the_next_node_is_asked_where_one_does_not_answer_and_first_from_then_on() -> None:
    fake = FakeRestate("double")
    async with serving(fake) as url, RestateClient([nobody(), url], [nobody(), url]) as client:
        for key in "abc":
            await client.submit("double", key, b"{}")
        assert await client.query("select * from sys_service") == [{"name": "double"}]
        assert client._ingress[0] == client._admin[0] == url


@pytest.mark.parametrize("trouble", [429, 502, 503, "cut"])
async def test_a_request_is_sent_again_where_the_cluster_is_not_ready(trouble: int | str) -> None:
    fake = FakeRestate("double")
    async with serving(fake) as url, RestateClient(url, url) as client:
        fake.troubles = [trouble, trouble]
        assert (await client.submit("double", "a", b"{}"))[1]
        assert fake.troubles == []


async def test_what_a_server_refuses_is_not_sent_again() -> None:
    fake = FakeRestate("double")
    async with serving(fake) as url, RestateClient(url, url) as client:
        for ask in (client.submit("double", "a", b"{}"), client.query("select"), client.output("double", "a")):
            fake.troubles = [400]
            with pytest.raises(JournalError, match="later"):
                await ask


async def test_it_gives_up_when_nobody_answers_for_so_long() -> None:
    async with RestateClient(nobody(), nobody(), patience=0.0) as client:
        with pytest.raises(JournalError, match="No server answers at http://127") as told:
            await client.output("double", "a")
        assert told.value.__cause__ is not None


def test_without_its_extra_it_says_which_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(ConfigError, match=r"pip install 'mai-kernel\[restate\]'"):
        RestateClient("http://a", "http://a")


async def test_an_answer_without_json_is_told_as_it_is() -> None:
    fake = FakeRestate("double")
    async with serving(fake) as url, RestateClient(url, url) as client:
        fake.troubles = ["text"]
        with pytest.raises(JournalError, match="no JSON here"):
            await client.output("double", "a")


async def test_a_query_is_made_again_while_a_node_cannot_be_reached() -> None:
    fake = FakeRestate("double")
    async with serving(fake) as url, RestateClient(url, url) as client:
        fake.troubles = ["unreachable"]
        assert await client.query("select name from sys_service") == [{"name": "double"}]


@pytest.mark.parametrize("given", ["", "localhost:8080", "ftp://a", "http://", [], ["http://a", 7]])
def test_what_is_no_address_is_refused(given: object) -> None:
    with pytest.raises(ConfigError, match="ingress="):
        addresses(given, "ingress")  # type: ignore[arg-type]


def test_an_address_may_end_with_a_slash() -> None:
    assert addresses(["http://a:1/", "https://b/c/"], "admin") == ["http://a:1", "https://b/c"]
