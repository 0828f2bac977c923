"""The main job with a model behind a real HTTP server that answers well, badly or not at all; where the key goes."""

import base64
import json
import socket
import subprocess
import traceback
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

import review
from mai import AskError, DeadlineExceeded, LoopExhausted, Module, answers, capture
from mai.types import Asked, Progress, Question
from review_agent import FindCallers, ReadSource, Reviewer, tool_specs
from review_chat import ChatModel, endpoint, hidden
from review_facts import FileFacts
from review_files import read_facts
from review_measures import Risk, Tree
from review_messages import Message, ModelError, Throttled, Unavailable, Unusable
from review_report import Report
from tests.cli.support import command
from tests.examples import fake_model_server as fake
from tests.examples.fake_model_server import Behaviour, FakeModelServer

KEY = 'sk-very/secret+key"0123456789'
RULES = "reviewed by rules, no model was asked"
QUESTION = [Message(role="system", content="be brief"), Message(role="user", content="{}")]
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
    assert report.reviewer == f"reviewed by the model at {server.url}/chat/completions"
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


async def test_the_model_is_a_module_like_any_other() -> None:
    with FakeModelServer([fake.say("hello")]) as server, capture() as tr:
        model: Module[list[Message], fake.Json] = ChatModel(server.url)
        assert (await model(QUESTION)).content == "hello"
    assert (tr.runs[0].name, tr.runs[0].outcome) == ("ChatModel", "ok")


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
    assert asked[0].prompt == f"Send the source of 2 functions to {server.url}/chat/completions?"
    assert report.reviewer == f"reviewed by the model at {server.url}/chat/completions"


async def test_after_a_no_nothing_is_sent_and_the_rules_do_the_work(tree: Path, key: str) -> None:
    with answers(lambda question: False):
        report, server = await reviewed(tree, [fake.review], approve=True)
    assert server.requests == []
    assert report.riskiest == (await review.review(tree, top=2)).riskiest
    where = f"{server.url}/chat/completions"
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
    questions = [h for h in tr.runs[0].find(kind="attempt") if h.step_id.endswith("/ChatModel")]
    assert [handle.outcome for handle in questions] == ["error", "error", "ok", "ok", "ok"]
    for earlier, later, wait in zip(questions[:2], questions[1:3], (0.01, 0.02), strict=True):
        assert later.start_ns - earlier.start_ns >= wait * 1e9


async def test_a_model_that_throttles_for_ever_is_given_up_after_three_questions(tree: Path) -> None:
    report, server = await reviewed(tree, [fake.throttle()])
    assert verdicts(report) == ["rules", "rules"]
    assert len(server.requests) == 3
    assert "failed: HTTP 429 Too Many Requests" in report.reviewer


async def test_a_wait_beyond_the_patience_is_not_waited(tree: Path) -> None:
    report, server = await reviewed(tree, [fake.throttle("3600")])
    assert verdicts(report) == ["rules", "rules"]
    assert len(server.requests) == 1


DATE = "Wed, 21 Oct 2026 07:28:00 GMT"
LATER = "Wed, 21 Oct 2026 07:28:09 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"Retry-After": "-7"}, 0.0),
        ({"Retry-After": "nan"}, 1.0),
        ({"Retry-After": "inf"}, 1.0),
        ({"Retry-After": "soon"}, 1.0),
        ({}, 1.0),
        ({"Retry-After": LATER, "Date": DATE}, 9.0),
        ({"Retry-After": DATE, "Date": LATER}, 0.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:09 -0000", "Date": DATE}, 1.0),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_the_wait_is_what_the_server_says(status: int, headers: dict[str, str], seconds: float) -> None:
    def answer(connection: fake.Connection, request: fake.Request) -> None:
        connection.send_response_only(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            connection.send_header(name, value)
        connection.end_headers()

    with FakeModelServer([answer]) as server, pytest.raises(Throttled) as raised:
        await ChatModel(server.url)(QUESTION)
    assert raised.value.retry_after == seconds


# A model that fails


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        (fake.drop, "RemoteDisconnected: Remote end closed connection without response"),
        (fake.send(b"", status=500), "HTTP 500 Internal Server Error"),
        (fake.send(b"\x00\xff", status=418), "HTTP 418 I'm a Teapot"),
        (fake.send(b'{"error": {"message": "no such model"}}', status=404), 'HTTP 404 Not Found: {"error"'),
        (fake.send(b"", status=307, Location="http://127.0.0.1:9/"), "HTTP 307 Temporary Redirect"),
    ],
)
async def test_a_model_that_cannot_be_asked_is_asked_once_and_the_rules_do_its_work(
    tree: Path, behaviour: Behaviour, why: str
) -> None:
    report, server = await reviewed(tree, [behaviour])
    assert verdicts(report) == ["rules", "rules"]
    assert report.riskiest == (await review.review(tree, top=2)).riskiest
    assert report.reviewer.startswith(f"reviewed by rules, the model at {server.url}/chat/completions failed: ")
    assert why in report.reviewer
    assert why.split(":")[0] in " ".join(str(report).split())
    assert len(server.requests) == 1


NONSENSE = {
    "html": fake.send(b"<html><body>Welcome</body></html>", Content_Type="text/html"),
    "bad json": fake.send(b'{"choices": [}'),
    "nothing": fake.send(b""),
    "no utf-8": fake.send(b"\xff\xfe\x00"),
    "a list": fake.send(b"[]"),
    "half of it": fake.half,
    "empty choices": fake.send(b'{"choices": []}'),
    "no message": fake.send(b'{"choices": [{}]}'),
    "content is a number": fake.send(b'{"choices": [{"message": {"content": 1}}]}'),
    "a tool call without a name": fake.send(b'{"choices": [{"message": {"tool_calls": [{"function": {}}]}}]}'),
    "too long": fake.send(b" " * 1_000_001),
}


@pytest.mark.parametrize("behaviour", NONSENSE.values(), ids=NONSENSE)
async def test_an_answer_that_is_no_answer_costs_the_model_one_function(tree: Path, behaviour: Behaviour) -> None:
    report, server = await reviewed(tree, [behaviour, fake.review])
    assert verdicts(report) == ["rules", "model"]
    assert report.reviewer.startswith(f"1 of 2 reviewed by the model at {server.url}/chat/completions, the others by")
    assert "no chat completion" in report.reviewer or "longer than 1000000 bytes" in report.reviewer


@pytest.mark.parametrize(
    ("behaviour", "answer"),
    [
        (fake.call("delete_everything", {}), "error: there is no tool 'delete_everything'"),
        (fake.call("read_source", {"path": "shop/orders.py"}), "error: line: Field required"),
        (
            fake.call("read_source", {"path": "shop/orders.py", "line": "eight"}),
            "error: line: Input should be a",
        ),
        (fake.call("read_source", {"path": "shop/orders.py", "line": 8, "all": True}), "error: all: Extra inputs"),
        (fake.call("read_source", "{"), "error: Invalid JSON"),
        (fake.call("read_source", "[]"), "error: Input should be an object"),
        (fake.call("read_source", {"path": "/etc/passwd", "line": 1}), "error: the tree has no file '/etc/passwd'"),
        (fake.call("read_source", {"path": "shop/orders.py", "line": 9}), "error: no function starts at line 9"),
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
    assert told["content"].startswith(answer)
    assert told["tool_call_id"] == server.requests[1].body["messages"][-2]["tool_calls"][0]["id"] != ""


@pytest.mark.parametrize("words", ["Fine!", "{}", '{"severity": "dreadful", "reason": "r", "advice": "a"}', ""])
async def test_a_model_that_gives_no_verdict_is_told_so_and_can_still_give_one(tree: Path, words: str) -> None:
    report, server = await reviewed(tree, [fake.say(words), fake.say(f"So: {json.dumps(VERDICT)}.")], top=1)
    assert verdicts(report) == ["model"]
    assert server.requests[1].body["messages"][-1]["content"].startswith("That is no verdict: ")


@pytest.mark.parametrize("behaviour", [fake.say("Hmm."), fake.call("find_callers", {"name": "settle"})])
async def test_a_model_that_comes_to_no_end_is_stopped(tree: Path, behaviour: Behaviour) -> None:
    report, server = await reviewed(tree, [behaviour], top=1)
    assert verdicts(report) == ["rules"]
    assert "no verdict after 8 answers" in report.reviewer
    assert len(server.requests) == 8


async def test_a_talk_without_end_is_an_unusable_model_and_says_why(tree: Path) -> None:
    facts = read_facts(tree, "shop/orders.py")
    assert isinstance(facts, FileFacts)
    small = Tree(tree, (), (facts,), ())
    with FakeModelServer([fake.say("Hmm.")]) as server:
        reviewer = Reviewer(ChatModel(server.url), ReadSource(small), FindCallers(small), turns=3)
        with pytest.raises(Unusable, match="no verdict after 3 answers") as raised:
            await reviewer(Risk(function=facts.functions[0], risk=1.0))
    assert isinstance(raised.value.__cause__, LoopExhausted)
    assert len(server.requests) == 3


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
    assert "failed: ConnectionRefusedError: " in report.reviewer


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
    assert all("authorization" not in request.headers for request in server.requests)


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
        with FakeModelServer([behaviour]) as other:
            said = await answer_or_error(ChatModel(other.url))
    assert server.requests[0].headers["authorization"] == f"Bearer {key}"
    handles = [handle for run in tr.runs for handle in run.walk()]
    seen = [str(report), report.model_dump_json(), said, *map(str, tr.runs)]
    seen += [f"{handle.error} {handle.attributes} {handle.step_id}" for handle in handles]
    for form in [*forms(key), key[:12]]:
        assert not [text for text in seen if form in text]


async def answer_or_error(model: ChatModel) -> str:
    """The answer, or the whole traceback of what was raised instead."""
    try:
        return (await model(QUESTION)).model_dump_json()
    except ModelError as error:
        return "".join(traceback.format_exception(error, chain=True))


@given(st.text(), st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8), st.text())
def test_a_key_is_taken_out_of_any_text(before: str, key: str, after: str) -> None:
    for form in forms(key):
        assert hidden(f"{before}{form}{after}", SecretStr(key)) == f"{hidden(before, SecretStr(key))}[key]{after}" or (
            form not in hidden(f"{before}{form}{after}", SecretStr(key))
        )


async def test_a_redirect_does_not_take_the_key_elsewhere(tree: Path, key: str) -> None:
    with FakeModelServer([fake.review]) as elsewhere:
        for status in (301, 302, 303, 307, 308):
            report, _ = await reviewed(tree, [fake.send(b"", status=status, Location=elsewhere.url)], top=1)
            assert f"failed: HTTP {status}" in report.reviewer
        assert elsewhere.requests == []


async def test_a_model_on_this_machine_is_not_asked_through_a_proxy(
    tree: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeModelServer([fake.review]) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        report, _ = await reviewed(tree, [fake.review], top=1)
        assert proxy.requests == []
    assert verdicts(report) == ["model"]


async def test_a_plain_connection_to_another_machine_carries_no_key(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeModelServer([fake.say("hello")]) as proxy:  # stands between this machine and the other
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert (await ChatModel("http://model.invalid/v1")(QUESTION)).content == "hello"
    assert "authorization" not in proxy.requests[0].headers


@pytest.mark.parametrize("bad", ["sk-1\r\nX-Other: 1", "sk-ключ", "sk-1\x00"])
async def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(
    bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "\x00" not in bad:  # the environment cannot hold it either
        monkeypatch.setenv("OPENAI_API_KEY", bad)
        with FakeModelServer([fake.say("hello")]) as server, pytest.raises(Unavailable) as raised:
            await ChatModel(server.url)(QUESTION)
        assert "sk-" not in str(raised.value)
        assert server.requests == []


# Small parts


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://host", "http://host/v1/chat/completions"),
        ("https://host:8443/", "https://host:8443/v1/chat/completions"),
        ("https://host/openai/v1", "https://host/openai/v1/chat/completions"),
        ("https://host/v1/chat/completions/", "https://host/v1/chat/completions"),
        ("https://host/v1?api-version=3#part", "https://host/v1/chat/completions?api-version=3"),
    ],
)
def test_the_address_is_completed(url: str, address: str) -> None:
    assert endpoint(url) == address


async def test_what_stands_behind_a_question_mark_is_not_in_the_report(tree: Path) -> None:
    with FakeModelServer([fake.drop]) as server:
        report = await review.review(tree, model=f"{server.url}?token=hidden", top=1)
    assert server.requests[0].path == "/v1/chat/completions?token=hidden"
    assert "hidden" not in report.model_dump_json()


def test_the_tools_are_described_by_their_own_modules() -> None:
    read_source, find_callers = tool_specs()
    assert read_source.description.startswith("Gives the source of a function")
    assert set(read_source.parameters["properties"] or ()) == {"path", "line"}  # type: ignore[arg-type]
    assert find_callers.parameters["required"] == ["name"]
