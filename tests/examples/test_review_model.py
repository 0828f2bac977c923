"""The main job with a model behind a real HTTP server that answers well, badly or not at all; where the key goes."""

import base64
import json
import socket
import subprocess
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

import pytest

import review
from mai import AskError, DeadlineExceeded, answers, capture
from mai.models import ScriptedModel
from mai.types import Asked, Progress, Question
from review_agent import reviewer
from review_measures import Tree
from review_model import address, key_for
from review_report import Report
from tests.cli.support import command
from tests.examples import fake_model_server as fake
from tests.examples.fake_model_server import Behaviour, FakeModelServer

KEY = 'sk-very/secret+key"0123456789'
RULES = "reviewed by rules, no model was asked"
VERDICT = {"severity": "low", "reason": "r", "advice": "a"}


@pytest.fixture(autouse=True)
def no_key_but_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return KEY


async def reviewed(tree: Path, behaviours: Sequence[Behaviour], **options: object) -> tuple[Report, FakeModelServer]:
    """Review the two riskiest functions of the small tree with a model that behaves so."""
    with FakeModelServer(list(behaviours)) as server:
        given = {"top": 2, "pause": 0.0, **options}
        report = await review.review(tree, model=server.url, **given)  # type: ignore[arg-type]
        return report, server


def verdicts(report: Report) -> list[str]:
    return [found.by for found in report.riskiest]


# A model that works


async def test_a_model_reviews_with_the_tools_and_the_report_says_so(tree: Path) -> None:
    report, server = await reviewed(tree, [fake.review], model_name="tiny")
    assert verdicts(report) == ["model", "model"]
    assert report.reviewer == f"reviewed by the model at {server.url}"
    assert report.riskiest[0].verdict.reason == "read def settle(order, prices, seen=[], *, retries=3, rounding=None)"
    assert report.riskiest[0].verdict.advice == "look at 0 callers"
    assert len(server.requests) == 6
    first, _, third = (request.body for request in server.requests[:3])
    assert server.requests[0].path == "/v1/chat/completions"
    assert first["model"] == "tiny"
    assert [tool["function"]["name"] for tool in first["tools"]] == ["read_source", "find_callers"]
    assert first["tools"][0]["function"]["parameters"]["required"] == ["path", "line"]
    assert [message["role"] for message in third["messages"]] == [
        *("system", "user", "assistant", "tool", "assistant", "tool")
    ]
    assert third["messages"][2]["tool_calls"][0]["id"] == third["messages"][3]["tool_call_id"] == "r1"


# Asking before anything is sent


@pytest.mark.parametrize("said", [True, "yes"])
async def test_nothing_is_sent_before_the_yes(tree: Path, said: object) -> None:
    sent: list[int] = []
    asked: list[Question] = []
    with FakeModelServer([fake.review]) as server:

        def answer(question: Question) -> object:
            asked.append(question)
            sent.append(len(server.requests))
            return said

        with answers(answer):
            report = await review.review(tree, model=server.url, top=2, pause=0.0, approve=True)
    assert sent == [0]
    assert len(server.requests) == 6
    assert asked[0].prompt == f"Send the source of 2 functions to {server.url}?"
    assert report.reviewer == f"reviewed by the model at {server.url}"


async def test_after_a_no_nothing_is_sent_and_the_rules_do_the_work(tree: Path, key: str) -> None:
    with answers(lambda question: False):
        report, server = await reviewed(tree, [fake.review], approve=True)
    assert server.requests == []
    assert report.riskiest == (await review.review(tree, top=2)).riskiest
    where = f"{server.url}"
    assert report.reviewer == f"reviewed by rules, nobody approved that anything is sent to {where}"


async def test_with_nobody_to_ask_nothing_is_sent_and_the_review_fails(tree: Path) -> None:
    with FakeModelServer([fake.review]) as server:
        with pytest.raises(AskError, match="nobody can answer"):
            await review.review(tree, model=server.url, approve=True)
        assert server.requests == []


async def test_who_started_the_review_may_answer_and_see_how_far_it_is(tree: Path) -> None:
    done: dict[str, list[tuple[int, int | None]]] = {}
    with FakeModelServer([fake.review]) as server:
        handle = review.review.start(tree, model=server.url, top=2, pause=0.0, approve=True)
        async for event in handle:
            if isinstance(event, Asked):
                handle.answer("yes")
            elif isinstance(event, Progress):
                done.setdefault(event.step_id.rpartition("/")[2], []).append((event.done, event.total))
        report = await handle
    assert verdicts(report) == ["model", "model"]
    assert done == {"files": [(n, 6) for n in range(1, 7)], "risks": [(1, 2), (2, 2)]}


async def test_without_a_model_or_a_risk_nobody_is_asked(tree: Path, tmp_path: Path) -> None:
    assert (await review.review(tree, approve=True)).reviewer == RULES
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.py").touch()
    report, server = await reviewed(tmp_path / "empty", [fake.review], approve=True)
    assert (report.riskiest, server.requests) == ((), [])


@pytest.mark.slow
def test_the_command_line_asks_too(tree: Path) -> None:
    with FakeModelServer([fake.review]) as server:

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            page = f"{Path(review.__file__)}:review"
            given = [str(tree), "--model", server.url, "--approve", "true", "--top", "1", *words]
            return subprocess.run(command("run", page, *given), capture_output=True, text=True, check=False)

        nobody = run()
        assert (nobody.returncode, nobody.stdout, len(server.requests)) == (1, "", 0)
        assert "with --answer VALUE" in nobody.stderr
        no = run("--answer", "no")
        assert (no.returncode, len(server.requests)) == (0, 0)
        assert "nobody approved" in " ".join(no.stdout.split())
        yes = run("--answer", "yes", "--trace")
        assert (yes.returncode, len(server.requests)) == (0, 3)
        assert "✓ files x6" in yes.stderr


# A model that is asked too often


async def test_a_throttled_question_is_asked_again_after_the_wait(tree: Path) -> None:
    with capture() as tr:
        report, server = await reviewed(tree, [fake.throttle("0.01"), fake.throttle("0.02"), fake.review], top=1)
    assert verdicts(report) == ["model"]
    assert len(server.requests) == 5
    questions = [h for h in tr.runs[0].find(kind="attempt") if "/Model" in h.step_id]
    assert [handle.outcome for handle in questions] == ["error", "error", "ok", "ok", "ok"]
    for earlier, later, wait in zip(questions[:2], questions[1:3], (0.01, 0.02), strict=True):
        assert later.start_ns - earlier.start_ns >= wait * 1e9


async def test_a_model_that_throttles_for_ever_is_given_up_after_three_questions(tree: Path) -> None:
    report, server = await reviewed(tree, [fake.throttle()])
    assert verdicts(report) == ["rules", "rules"]
    assert len(server.requests) == 3
    assert "failed: openai:default: slow down (HTTP 429)" in report.reviewer


async def test_a_wait_beyond_the_patience_is_not_waited(tree: Path) -> None:
    report, server = await reviewed(tree, [fake.throttle("3600")])
    assert verdicts(report) == ["rules", "rules"]
    assert len(server.requests) == 1


# A model that fails


@pytest.mark.parametrize(
    ("behaviour", "why", "requests"),
    [
        (fake.drop, "Connection error: RemoteProtocolError: Server disconnected", 1),
        (fake.half, "Connection error: RemoteProtocolError: peer closed connection", 1),
        (fake.send(b"", status=500), "status_code: 500", 3),  # as servers do that are busy
        (fake.send(b"\x00\xff", status=418), "status_code: 418", 1),
        (fake.send(b'{"error": {"message": "no such model"}}', status=404), "no such model (HTTP 404)", 1),
        (fake.send(b"", status=401), "status_code: 401", 1),
        (fake.send(b"", status=307, Location="http://127.0.0.1:9/"), "Error code: 307", 2),
    ],
)
async def test_a_model_that_cannot_be_asked_is_not_asked_for_the_next_function_and_the_rules_do_its_work(
    tree: Path, behaviour: Behaviour, why: str, requests: int
) -> None:
    report, server = await reviewed(tree, [behaviour])
    assert verdicts(report) == ["rules", "rules"]
    assert report.riskiest == (await review.review(tree, top=2)).riskiest
    assert report.reviewer.startswith(f"reviewed by rules, the model at {server.url} failed: ")
    assert why in report.reviewer
    assert why.split(":")[0] in " ".join(str(report).split())
    assert len(server.requests) == requests


NONSENSE = {
    "html": fake.send(b"<html><body>Welcome</body></html>", Content_Type="text/html"),
    "bad json": fake.send(b'{"choices": [}'),
    "nothing": fake.send(b""),
    "no utf-8": fake.send(b"\xff\xfe\x00"),
    "a list": fake.send(b"[]"),
    "empty choices": fake.send(b'{"choices": []}'),
    "no message": fake.send(b'{"choices": [{}]}'),
    "content is a number": fake.send(b'{"choices": [{"message": {"content": 1}}]}'),
    "a tool call without a name": fake.send(b'{"choices": [{"message": {"tool_calls": [{"function": {}}]}}]}'),
}


@pytest.mark.parametrize("behaviour", NONSENSE.values(), ids=NONSENSE)
async def test_an_answer_that_is_no_answer_costs_the_model_one_function(tree: Path, behaviour: Behaviour) -> None:
    report, server = await reviewed(tree, [behaviour, fake.review])
    assert verdicts(report) == ["rules", "model"]
    assert report.reviewer.startswith(f"1 of 2 reviewed by the model at {server.url}, the others by")
    assert "because it failed: openai:default: " in report.reviewer
    assert "\n" not in report.reviewer


@pytest.mark.parametrize(
    ("behaviour", "answer"),
    [
        (fake.call("delete_everything", {}), "error: no such tool; there are: read_source, find_callers"),
        (
            fake.call("read_source", {"path": "shop/orders.py"}),
            "error: ConfigError: read_source is missing its argument 'line' (int)",
        ),
        (
            fake.call("read_source", {"path": "shop/orders.py", "line": "eight"}),
            "'line' must be int, not str 'eight'",
        ),
        (
            fake.call("read_source", {"path": "shop/orders.py", "line": 8, "all": True}),
            "error: ConfigError: read_source has no parameter 'all'; it has 'line', 'path'",
        ),
        (fake.call("read_source", "{"), "error: ArgumentsRefused: the arguments of read_source are no JSON"),
        (fake.call("read_source", "[]"), "error: ArgumentsRefused: the arguments of read_source must be a JSON object"),
        (
            fake.call("read_source", {"path": "/etc/passwd", "line": 1}),
            "error: LookupError: the tree has no file '/etc/passwd'",
        ),
        (
            fake.call("read_source", {"path": "shop/orders.py", "line": 9}),
            "error: LookupError: no function starts at line 9",
        ),
        (fake.call("find_callers", {"name": "nobody"}, ""), '{"name":"nobody","total":0,"files":0,"places":[]}'),
    ],
)
async def test_a_wrong_tool_call_is_answered_so_that_the_model_can_mend_it(
    tree: Path, behaviour: Behaviour, answer: str
) -> None:
    report, server = await reviewed(tree, [behaviour, fake.say(json.dumps(VERDICT))], top=1)
    assert verdicts(report) == ["model"]
    told = server.requests[1].body["messages"][-1]
    assert told["role"] == "tool"
    assert answer in told["content"]
    assert told["tool_call_id"] == server.requests[1].body["messages"][-2]["tool_calls"][0]["id"] != ""


@pytest.mark.parametrize("words", ["Fine!", "{}", '{"severity": "dreadful", "reason": "r", "advice": "a"}', ""])
async def test_a_model_that_gives_no_verdict_is_told_so_and_can_still_give_one(tree: Path, words: str) -> None:
    report, server = await reviewed(tree, [fake.say(words), fake.say(f"So: {json.dumps(VERDICT)}.")], top=1)
    assert verdicts(report) == ["model"]
    assert server.requests[1].body["messages"][-1]["content"].startswith("That does not fit: ")


@pytest.mark.parametrize(
    ("behaviour", "why", "requests"),
    [
        (fake.say("Hmm."), "no answer in 3 fits Verdict", 3),
        (fake.call("find_callers", {"name": "settle"}), "no answer after 8 turns", 8),
    ],
)
async def test_a_model_that_comes_to_no_end_is_stopped(
    tree: Path, behaviour: Behaviour, why: str, requests: int
) -> None:
    report, server = await reviewed(tree, [behaviour], top=1)
    assert verdicts(report) == ["rules"]
    assert why in report.reviewer
    assert len(server.requests) == requests


async def test_a_stalling_model_is_left_after_the_patience(tree: Path) -> None:
    report, server = await reviewed(tree, [fake.stall], patience=0.1)
    assert verdicts(report) == ["rules", "rules"]
    assert len(server.requests) <= 1  # a busy machine may not come to send it
    assert "failed: " in report.reviewer


async def test_a_deadline_over_the_whole_review_ends_a_stalling_model_too(tree: Path) -> None:
    with FakeModelServer([fake.stall]) as server, pytest.raises(DeadlineExceeded):
        await review.review.with_(timeout=0.2)(tree, model=server.url, patience=1.0)
    assert len(server.requests) <= 1  # a busy machine may not come to send it


async def test_a_model_that_is_not_there_is_reported(tree: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    report = await review.review(tree, model=f"http://127.0.0.1:{port}", top=1)
    assert "failed: openai:default: Connection error: ConnectionRefusedError: " in report.reviewer


# The key


async def test_a_key_alone_sends_nothing_anywhere(tree: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeModelServer([fake.review]) as server:
        for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, server.url)
        report = await review.review(tree)
        assert server.requests == []
    assert report.reviewer == RULES
    assert key not in report.model_dump_json()


async def test_the_key_is_sent_with_each_question_to_the_given_address(tree: Path, key: str) -> None:
    _, server = await reviewed(tree, [fake.review], top=1)
    assert [request.headers["authorization"] for request in server.requests] == [f"Bearer {key}"] * 3
    assert key not in json.dumps([request.body for request in server.requests])


async def test_without_a_key_none_is_sent(tree: Path) -> None:
    _, server = await reviewed(tree, [fake.review], top=1)
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer api-key-not-set"}


def forms(key: str) -> list[str]:
    in_json = json.dumps(key)[1:-1]
    encoded = base64.b64encode(key.encode()).decode()
    return [key, in_json, in_json.replace("/", "\\/"), urllib.parse.quote(key, safe=""), encoded]


def quoting(body: str) -> Behaviour:
    return fake.send(body.encode(), status=401)


@pytest.mark.parametrize(
    "behaviour",
    [
        fake.echo_key,
        *(quoting(f"wrong key: {form}") for form in forms(KEY)),
        quoting("x" * 150 + KEY),  # where the message is cut
        fake.say(json.dumps({**VERDICT, "reason": f"your key is {KEY}"})),
        fake.say("\n".join(forms(KEY))),
        fake.send(json.dumps({"choices": [], "key": KEY}).encode()),
        fake.send(("x" * 50 + KEY).encode()),
        fake.call(KEY, {KEY: KEY}),
        fake.throttle(KEY.replace('"', "")),
    ],
)
async def test_a_key_that_comes_back_is_in_no_report_trace_or_error(tree: Path, key: str, behaviour: Behaviour) -> None:
    with capture() as tr:
        report, server = await reviewed(tree, [behaviour], top=1, patience=0.9)
    assert server.requests[0].headers["authorization"] == f"Bearer {key}"
    handles = [handle for run in tr.runs for handle in run.walk()]
    seen = [str(report), report.model_dump_json(), *map(str, tr.runs)]
    seen += [f"{handle.error} {handle.attributes} {handle.step_id}" for handle in handles]
    for form in [*forms(key), key[:12]]:
        assert not [text for text in seen if form in text]


async def test_a_redirect_does_not_take_the_key_elsewhere(tree: Path, key: str) -> None:
    with FakeModelServer([fake.review]) as elsewhere:
        for status in (301, 302, 303, 307, 308):
            report, _ = await reviewed(tree, [fake.send(b"", status=status, Location=elsewhere.url)], top=1)
            assert f"Error code: {status}" in report.reviewer
        assert elsewhere.requests == []


async def test_a_key_is_not_read_for_a_plain_connection_to_another_machine(key: str) -> None:
    assert key_for("http://model.example/v1", "OPENAI_API_KEY") is None
    assert key_for("http://10.0.0.1/v1", "OPENAI_API_KEY") is None
    for url in ("https://model.example/v1", "http://localhost:8000/v1", "http://127.0.0.1/v1", "http://[::1]/v1"):
        assert key_for(url, "OPENAI_API_KEY") == key
    assert key_for("https://model.example/v1", "ANOTHER_KEY") is None


async def test_the_key_may_be_in_another_variable(tree: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVER_KEY", "another-key-0815")
    _, server = await reviewed(tree, [fake.review], top=1, key_from="MY_SERVER_KEY")
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer another-key-0815"}


# Small parts


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://host", "http://host/v1"),
        ("https://host:8443/", "https://host:8443/v1"),
        ("https://host/openai/v1", "https://host/openai/v1"),
        ("https://host/v1/chat/completions/", "https://host/v1"),
        ("https://host/v1#part", "https://host/v1"),
    ],
)
def test_the_address_is_completed(url: str, base: str) -> None:
    assert address(url) == base


def test_the_tools_are_described_by_their_own_modules() -> None:
    read_source, find_callers = reviewer(ScriptedModel("x"), Tree(Path(), (), (), ())).tools
    assert read_source.description.startswith("Gives the source of a function")
    assert set(read_source.schema()["properties"]) == {"path", "line"}
    assert find_callers.schema()["required"] == ["name"]
