"""The page: it needs nothing but itself, nothing in a trace gets out of its data, and what a browser makes of it."""

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from mai import TraceHandle, capture, module
from mai.views.waterfall import embedded, page
from tests.views.handles import call, handle, stored, traces

HOSTILE = (
    "</script><script>alert(1)</script>", "<!--<script>", "]]>", "'\"`", "\u2028\u2029", "&lt;b&gt;", "${7*7}",
    "<img src=x onerror=alert(1)>", "javascript:alert(1)", "\u202egnp.exe",
)  # fmt: skip


def data_of(text: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def parts(text: str, tag: str) -> list[str]:
    return re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)


def test_the_page_has_one_style_and_one_script_which_its_policy_knows_by_their_hashes() -> None:
    text = handle(call("root", 0, 9)).html()
    (style,), (script,) = parts(text, "style"), parts(text, "script")
    for kind, content in (("style", style), ("script", script)):
        known = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{known}'" in text
    assert "default-src 'none'" in text
    assert not re.search(r"\son\w+=|\sstyle=|https?:|url\(|@import|\beval\b|innerHTML|insertAdjacentHTML", text)
    assert not re.search(r"\bfetch\b|XMLHttpRequest|WebSocket|import\(|<link|<img|<base|src=", text)


@pytest.mark.parametrize("bad", HOSTILE)
def test_a_hostile_name_stays_data(bad: str) -> None:
    error = {"type": bad, "module": bad, "message": bad}
    inner = call(bad, 0, 1, outcome="error", error=error, attributes={bad: bad})
    h = handle(call(bad, 0, 9, inner, kind=bad, module=bad))
    text = h.html()
    assert len(parts(text, "script")) == 1
    assert text.count("<script") == text.count("</script>") == 2
    assert data_of(text)["runs"][0]["trace"] == h.to_dict()
    inside = re.search(r'srcdoc="([^"]*)"', embedded([h]))
    assert inside
    assert html.unescape(inside[1]) == text


@given(traces())
def test_any_trace_is_a_page_that_holds_it(data: Any) -> None:
    h = TraceHandle.from_dict(data)
    (run,) = data_of(h.html())["runs"]
    assert run["trace"] == h.to_dict()
    assert len(run["self_ns"]) == len(run["queue_ns"]) == len(run["trace"]["calls"])
    calls = list(h.walk())
    assert [calls[i] for i in run["critical"]] == h.critical_path()


def test_a_page_without_times_is_a_page_too() -> None:
    root = call("root", None, None, call("a", None, None, outcome="error"), outcome="error")
    assert data_of(handle(root).html())["runs"][0]["critical"] == [0]


def test_several_runs_are_shown_at_their_distance() -> None:
    first = TraceHandle.from_dict(stored(call("a", 0, 9)))
    second = TraceHandle.from_dict(stored(call("b", 0, 9), started_at=1002.5))
    data = data_of(page([first, second]))
    assert [run["shift_ns"] for run in data["runs"]] == [0, 2_500_000_000]
    assert "<title>a and 1 more</title>" in page([first, second])


def test_what_is_too_much_for_a_page_is_counted() -> None:
    root = handle(call("root", 0, 9, *(call("a", 0, 1) for _ in range(20))))
    (run,) = data_of(page([root], most=5))["runs"]
    assert [one["name"] for one in run["trace"]["calls"]] == ["root", "a", "a", "a", "a"]
    assert run["trace"]["calls"][0]["dropped"] == 16


def test_a_browser_without_scripts_is_shown_the_beginning_of_the_tree() -> None:
    root = handle(call("<root>", 0, 9, *(call("a", 0, 1) for _ in range(300))))
    (text,) = parts(root.html(), "pre")
    assert text.startswith("✓ &lt;root&gt; ")
    assert (text.count("\n"), text[-1]) == (200, "…")


def test_a_notebook_shows_a_handle_and_a_capture_in_a_frame_of_their_own() -> None:
    @module
    async def shout(text: str) -> str:
        return text.upper()

    with capture() as trace:
        shout.run("x")
    (run,) = trace.runs
    assert trace._repr_html_() == run._repr_html_()
    assert run._repr_html_().startswith('<iframe srcdoc="&lt;!doctype html&gt;')
    assert 'sandbox="allow-scripts"' in run._repr_html_()
    assert capture()._repr_html_() == "<p>no runs</p>"
    assert 'height="620"' in embedded([handle(call("root", 0, 9, *(call("a", 0, 1) for _ in range(99))))])


def test_what_steps_were_given_is_not_in_the_page() -> None:
    @module
    async def shout(text: str) -> str:
        return text.upper()

    with capture(sizes=True) as trace:
        shout.run("secret")
    assert "secret" not in trace.runs[0].html().lower()


# ---------------------------------------------------------------- in a browser

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr",
    "--virtual-time-budget=5000", "--window-size=1200,700",
)  # fmt: skip
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def browse(h: TraceHandle[Any], folder: Path, wanted: str = "") -> str:
    """Return what a browser makes of the page of *h*; nothing in it may be refused or fail."""
    file = folder / "trace.html"
    file.write_text(h.html(), encoding="utf-8")
    command = [
        str(CHROMIUM),
        *FLAGS,
        f"--user-data-dir={folder / 'profile'}",
        "--dump-dom",
        f"{file.as_uri()}#{wanted}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
class TestInABrowser:
    def test_hostile_names_are_shown_as_text(self, tmp_path: Path) -> None:
        bad = "".join(HOSTILE)
        error = {"type": bad, "module": bad, "message": bad}
        inner = call(bad, 0, 1, outcome="error", error=error, attributes={bad: bad})
        dom = browse(handle(call(bad, 0, 9, inner)), tmp_path, "call=1")
        rows = dom[dom.index('id="rows"') : dom.index("<footer")]
        assert "<script" not in rows
        assert "<img" not in rows
        assert rows.count(html.escape("</script><script>alert(1)", quote=False)) >= 4

    def test_of_ten_thousand_calls_only_those_in_sight_have_rows(self, tmp_path: Path) -> None:
        branches = [
            call(f"branch{i}", i, i + 1, *(call(f"leaf{i}-{k}", i, i + 1) for k in range(99))) for i in range(100)
        ]
        dom = browse(handle(call("root", 0, 100, *branches)), tmp_path, "q=leaf77-5")
        assert 'aria-rowcount="10001"' in dom
        assert 10 < dom.count('role="row"') < 60
        assert ">leaf77-5</span>" in dom
        assert ">1/11</output>" in dom

    def test_folding_and_the_critical_path_alone_leave_fewer_rows(self, tmp_path: Path) -> None:
        slow = call("slow", 0, 9, call("inner", 0, 9))
        root = handle(call("root", 0, 9, call("quick", 0, 1), slow))
        assert 'aria-rowcount="4"' in browse(root, tmp_path)
        assert 'aria-rowcount="3"' in browse(root, tmp_path, "fold=")
        critical = browse(root, tmp_path, "only=")
        assert 'aria-rowcount="3"' in critical
        assert ">quick</span>" not in critical

    def test_the_details_tell_attributes_error_events_and_times(self, tmp_path: Path) -> None:
        event = {"at_ns": 2_000_000, "name": "mai.first_chunk", "attributes": {}}
        error = {"type": "ValueError", "module": "builtins", "message": "no such host"}
        facts = {"attributes": {"gen_ai.usage.input_tokens": 120}, "events": [event], "error": error}
        dom = browse(handle(call("root", 0, 9, call("chat", 1, 5, outcome="error", **facts))), tmp_path, "call=1")
        panel = dom[dom.index('id="details"') : dom.index("</aside>")]
        for text in (
            "ValueError: no such host",
            "gen_ai.usage.input_tokens",
            ">120<",
            "mai.first_chunk",
            "root/chat",
            ">4 ms<",
        ):
            assert text in panel
        assert "1 ms after the beginning" in panel
