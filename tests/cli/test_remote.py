"""`mai runs --restate` in this process, against a server that does what a real one was seen to do."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cli.support import Done
from tests.durable.restate.fake import FakeRestate, FakeRun, serving_apart

Mai = Callable[..., Done]
ASKED = {"status": "running", "questions": {"sell/ask": {"prompt": "Sell?", "expected": "bool"}}}


@pytest.fixture
def fake() -> FakeRestate:
    fake = FakeRestate("sell", "rag")
    for service, key in (("sell", "one"), ("rag", "two"), ("sell", "three"), ("sell", "four")):
        fake.runs[service, key] = FakeRun(service, key, b"{}", {}, status="suspended")
    fake.runs["sell", "one"].about = ASKED
    fake.runs["rag", "two"].finish(200, 42)
    fake.runs["sell", "three"].about = {"status": "timeout"}
    fake.runs["sell", "three"].finish(408, {"message": "late"})
    fake.runs["sell", "four"].status = "backing-off"
    fake.runs["sell", "four"].row = {"retry_count": 3, "last_failure": "no connection"}
    return fake


@pytest.fixture
def url(fake: FakeRestate) -> Iterator[str]:
    with serving_apart(fake) as found:
        yield found


@pytest.fixture
def runs(mai: Mai, url: str) -> Mai:
    def call(*words: str) -> Done:
        return mai("runs", *words, "--restate", url, "--ingress", url)

    return call


def command(kind: str, number: int, **facts: Any) -> dict[str, Any]:
    return {"Command": {kind: {"completion_id": number, "name": "", **facts}}}


def completed(kind: str, number: int, data: bytes | None = None) -> dict[str, Any]:
    facts: dict[str, Any] = {"completion_id": number}
    return {
        "Notification": {"Completion": {kind: facts if data is None else {**facts, "result": {"Success": [*data]}}}}
    }


JOURNAL = [
    {"Command": {"Input": {"payload": [*b'{"n":1}'], "name": ""}}},
    command("Run", 1, name="sell/add"),
    completed("Run", 1, b'{"input": "{}"}\n2'),
    command("Sleep", 2, name="sell/Delay", wake_up_time=1_800_000_000_000),
    completed("Sleep", 2),
    command("GetPromise", 3, key="signal/sell/ask/0"),
    completed("GetPromise", 3, b'{"id": null, "value": "perhaps"}'),
    command("Run", 4, name="sell/ask!refused[1]"),
    completed("Run", 4, b'["perhaps"]'),
    command("GetPromise", 5, key="signal/paid/0"),
    command("GetPromise", 6, key="signal/paid/1"),
    completed("GetPromise", 5, b'{"id": null, "value": 1}'),
    completed("GetPromise", 6, b'{"id": null, "value": 2}'),
    command("Run", 7, name="sell/add!undo"),
    completed("Run", 7, b'{"error": "{\\"type\\": \\"Boom\\"}"}'),
    command("Run", 8, name="sell/cut"),
    completed("Run", 8, b'{"cancelled": true}'),
    command("Run", 9, name="sell/now"),
    completed("Run", 9, b"[7]"),
    command("Run", 10, name="sell/open"),
]


@pytest.fixture
def journal(fake: FakeRestate) -> None:
    fake.journal = [
        {"index": i, "appended_at": f"2026-11-21T20:00:{i:02}.000Z", "entry_json": json.dumps(entry)}
        for i, entry in enumerate(JOURNAL)
    ]


def test_runs_are_listed_newest_first_with_what_they_wait_for_and_fail_of(runs: Mai) -> None:
    done = runs("list")
    assert (done.code, done.err) == (0, "")
    assert [line.split()[2:5] for line in done.out.splitlines()] == [
        ["running", "four", "sell"], ["timeout", "three", "sell"], ["ok", "two", "rag"], ["waiting", "one", "sell"]
    ]  # fmt: skip
    assert "2 attempts failed, the last one of: no connection" in done.out
    assert "waits for sell/ask" in done.out


@pytest.mark.parametrize(("status", "wanted"), [("timeout", "three"), ("ok", "two"), ("waiting", "one")])
def test_only_some_runs_are_listed(runs: Mai, status: str, wanted: str) -> None:
    assert [line.split()[3] for line in runs("list", "--status", status).out.splitlines()] == [wanted]
    assert runs("list", "--status", "needs_attention").out == "no runs\n"
    assert len(runs("list", "--limit", "2").out.splitlines()) == 2
    (only,) = json.loads(runs("list", "--status", status, "--json").out)
    assert (only["run_id"], only["status"]) == (wanted, status)


@pytest.mark.usefixtures("journal")
def test_a_run_is_shown_with_the_tree_of_its_journal(runs: Mai) -> None:
    done = runs("show", "one")
    assert (done.code, done.err) == (0, "")
    for text in (
        "one  sell  waiting", 'input {"n":1}', "add  [1] step  1.000 s  -> 2", "Delay  [2] timer  until",
        "ask!refused[1]  [3] wait", '-> "perhaps"', "ask  asks 'Sell?' (bool)  waits for 'sell/ask'",
        "paid  [4] wait", "paid~2  [5] wait", "add!undo  [6] undo", "now  [7] value", "-> 7",
    ):  # fmt: skip
        assert text in done.out, (text, done.out)
    assert "cut" not in done.out
    assert "open" not in done.out


@pytest.mark.usefixtures("journal")
def test_a_run_is_shown_as_json(runs: Mai) -> None:
    facts = json.loads(runs("show", "one", "--json").out)
    assert (facts["run_id"], facts["input"], facts["questions"]) == ("one", {"n": 1}, {"sell/ask": "Sell?"})
    assert [one["path"] for one in facts["records"]][:3] == ["sell/add", "sell/Delay", "sell/ask!refused[1]"]


def test_a_failure_is_shown(runs: Mai, fake: FakeRestate) -> None:
    fake.runs["sell", "three"].why = {"type": "ReplayMismatch"}
    assert 'error {"type":"ReplayMismatch"}' in runs("show", "three").out
    fake.runs["rag", "two"].row = {"completion_result": "failure", "completion_failure": "[409] cancelled"}
    shown = runs("show", "two").out
    assert "two  rag  cancelled" in shown
    assert "error [409] cancelled" in shown


def test_a_run_is_signalled_answered_cancelled_and_resumed(runs: Mai, fake: FakeRestate) -> None:
    run = fake.runs["sell", "one"]
    assert [*runs("signal", "one", "paid", "[1, 2]", "--id", "bank-1")] == [0, "one: has the signal 'paid'\n", ""]
    assert [*runs("answer", "one", "true")] == [0, "one: has the answer to 'sell/ask'\n", ""]
    assert [one["value"] for one in run.signals] == [[1, 2], True]
    assert run.signals[0]["id"] == "bank-1"
    assert runs("resume", "one").out == "one: goes on\n"
    assert runs("cancel", "one").out == "one: is asked to end\n"
    assert [runs(*words).code for words in (("cancel", "one"), ("resume", "two"), ("signal", "one", "paid"))] == [2] * 3


def test_an_answer_that_is_to_be_a_text_stays_one(runs: Mai, fake: FakeRestate) -> None:
    fake.runs["sell", "one"].about = {"questions": {"a": {"prompt": "A?", "expected": "str"}, "b": {"prompt": "B?"}}}
    several = runs("answer", "one", "7")
    assert (several.code, several.out) == (2, "")
    assert "name one with --question: a, b" in several.err
    for name in "ab":
        runs("answer", "one", "7", "--question", name)
    assert [one["value"] for one in fake.runs["sell", "one"].signals] == ["7", 7]
    fake.refuses = {"refused": "it does not fit", "expected": "bool"}
    done = runs("answer", "one", "7", "--question", "b")
    assert (done.code, done.err) == (1, "mai runs: CastError: it does not fit\n")


def test_a_run_that_is_not_there_is_told(runs: Mai) -> None:
    for words in (("show", "none"), ("cancel", "none"), ("answer", "none", "1")):
        assert runs(*words).err == "mai runs: UnknownRun: There is no run 'none'\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fork", "one", "two"), "a server begins no workflow with the journal of another one"),
        (("export", "one"), "mai runs show --json"),
        (("prune",), "forgets a run by itself"),
        (("check",), "watches over its own storage"),
        (("backup", "file"), "its own tools"),
    ],
)
def test_what_a_server_does_not_give_is_told(mai: Mai, words: tuple[str, ...], message: str) -> None:
    done = mai("runs", *words, "--restate", "http://127.0.0.1:9070")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("mai runs: not with --restate: ")
    assert message in done.err


@pytest.mark.parametrize("words", [(), ("--db", "runs.db", "--restate", "http://a"), ("--restate", "localhost")])
def test_where_the_runs_are_is_said_once(mai: Mai, words: tuple[str, ...]) -> None:
    done = mai("runs", "list", *words)
    assert (done.code, done.out) == (2, "")
    assert "give" in done.err
