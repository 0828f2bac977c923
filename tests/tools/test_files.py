"""Files as tools: what is below the root can be used, and nothing else can be reached."""

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mai import ConfigError, answers
from mai.tools import AccessRefused, FileEntry, Found, Line, Listing, Tool, ToolError, files
from mai.tools.rooted import Root
from tests.support import refused

SECRET = "the secret of the house"


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A root with all that may lead out of it, beside a directory that has a secret."""
    outside, root = tmp_path / "outside", tmp_path / "root"
    for path in (outside / "sub", root / "d" / "e", root / ".git"):
        path.mkdir(parents=True)
    (outside / "secret").write_text(SECRET)
    (outside / "sub" / "secret").write_text(SECRET)
    (root / "a.txt").write_text("one\ntwo\nthree\n")
    (root / "d" / "b.txt").write_text("Two of d")
    (root / "d" / "e" / "c.py").write_text("two = 2\n")
    (root / ".env").write_text(SECRET)
    (root / ".git" / "config").write_text(SECRET)
    (root / "link").symlink_to(outside / "secret")
    (root / "near").symlink_to("a.txt")
    (root / "dlink").symlink_to(outside)
    (root / "d" / "up").symlink_to("..")
    (root / "d" / "loop").symlink_to("loop")
    (root / "binary").write_bytes(b"a\0b")
    os.mkfifo(root / "fifo")
    return root


def tools(root: Path, **how: Any) -> dict[str, Tool[..., Any]]:
    return {tool.name: tool for tool in files(root, write=True, **how)}


def snapshot(folder: Path) -> dict[str, Any]:
    """All that a directory holds, links as links."""
    found: dict[str, Any] = {}
    for at, names, others in os.walk(folder):
        for name in [*names, *others]:
            path = Path(at, name)
            regular = path.is_file() and not path.is_symlink()
            found[str(path)] = (path.read_bytes() if regular else None, os.lstat(path).st_mode)
    return found


NAMES = [
    *("..", ".", "", "a.txt", "d", "e", "b.txt", "c.py", "link", "near", "dlink", "up", "loop", "fifo", "binary"),
    *(".env", ".git", "config", "secret", "sub", "~", "%2e%2e", "..\\", "\uff0e\uff0e", "\u2025", "...", "..;", "..\0"),
    *("a.txt\0", "/", "root", "\udcff", "CON", "a" * 300, "outside", "$HOME", "-rf", "*", "\n", "proc", "self"),
]  # fmt: skip
paths = st.lists(st.one_of(st.sampled_from(NAMES), st.text(max_size=4)), max_size=8).map("/".join)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=paths, absolute=st.sampled_from(["", "/", "//", "{root}/", "{outside}/", "/proc/self/root/", "file://"]))
@example(path="dlink/secret", absolute="")
@example(path="d/up/link", absolute="")
@example(path="d/up/../../outside/secret", absolute="")
@example(path="secret", absolute="{outside}/")
def test_no_path_leads_out_of_the_root(house: Path, path: str, absolute: str) -> None:
    path = absolute.format(root=house, outside=house.parent / "outside") + path
    root, outside = Root(house), house.parent / "outside"
    before = snapshot(outside)
    for use in (read_with, list_with):
        try:
            text = use(root, path)
        except (ToolError, OSError, ValueError):
            continue
        assert SECRET not in text
        steps = [part for part in path.split("/") if part not in ("", ".")]
        assert ".." not in steps
        assert not any(house.joinpath(*steps[:n]).is_symlink() for n in range(1, len(steps) + 1))
    try:
        root.write(path, b"mine")
    except (ToolError, OSError, ValueError):
        pass
    else:
        written = house.joinpath(*[part for part in path.split("/") if part not in ("", ".")])
        assert written.read_bytes() == b"mine"
        assert written.resolve() == written
    assert snapshot(outside) == before


def read_with(root: Root, path: str) -> str:
    with root.open(path) as found:
        return os.read(found, 1000).decode("utf-8", "replace")


def list_with(root: Root, path: str) -> str:
    with root.directory(path) as at:
        return " ".join(os.listdir(at)).replace(".", "")


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        ("../outside/secret", AccessRefused, "has '..'"),
        ("d/../a.txt", AccessRefused, "has '..'"),
        ("/etc/passwd", AccessRefused, "is absolute"),
        ("a\0", AccessRefused, "null character"),
        (".env", AccessRefused, "begins with a dot"),
        (".git/config", AccessRefused, "begins with a dot"),
        ("link", AccessRefused, "leads through a link"),
        ("near", AccessRefused, "leads through a link"),
        ("dlink/secret", AccessRefused, "leads through a link"),
        ("d/up/a.txt", AccessRefused, "leads through a link"),
        ("d/loop", AccessRefused, "leads through a link"),
        ("fifo", AccessRefused, "no regular file"),
        ("d", AccessRefused, "no regular file"),
        (".", AccessRefused, "is the root"),
        ("binary", ToolError, "is no text"),
        ("gone", FileNotFoundError, "'gone'"),
        ("a.txt/b", NotADirectoryError, "Not a directory: 'a.txt'"),
        ("a" * 300, OSError, "too long"),
        ("\ud800", UnicodeEncodeError, "surrogates"),
    ],
)
async def test_what_cannot_be_read_says_why(house: Path, path: str, kind: type[Exception], words: str) -> None:
    result = await tools(house)["read_file"].use({"path": path})
    assert isinstance(result.error, kind)
    assert words in result.text
    assert str(house) not in result.text


@pytest.mark.parametrize("path", ["link", "dlink/new", "d", "fifo", ".", "d/loop", ".bashrc", "../x", "dlink"])
async def test_what_must_not_be_written_is_not(house: Path, path: str) -> None:
    before = snapshot(house.parent)
    result = await tools(house)["write_file"].use({"path": path, "text": "mine"})
    assert isinstance(result.error, AccessRefused | OSError)
    assert snapshot(house.parent) == before


async def test_a_file_is_read_whole_or_by_its_lines(house: Path) -> None:
    read = tools(house)["read_file"]
    assert await read("a.txt") == "one\ntwo\nthree\n"
    assert await read("./d//b.txt") == "Two of d"
    assert await read("a.txt", first_line=2) == "two\nthree\n"
    assert await read("a.txt", first_line=2, last_line=2) == "two\n"
    assert await read("d/b.txt", 1, 1) == "Two of d"
    assert await read("a.txt", first_line=9) == ""


async def test_what_is_too_long_is_cut_off_and_says_where(house: Path) -> None:
    (house / "long").write_text("ab\n" * 10)
    (house / "line").write_text("x" * 100)
    (house / "lines").write_text("y\n" * 3000)
    read = tools(house, max_bytes=10)["read_file"]
    assert await read("long") == "ab\nab\nab\na\n[cut off in line 4]"
    assert await read("line") == "x" * 10 + "\n[cut off in line 1]"
    assert (await read("lines", first_line=2900)).endswith("[cut off in line 1281]")


async def test_directories_are_listed(house: Path) -> None:
    found = tools(house)
    assert await found["list_files"]() == Listing([
        FileEntry("a.txt", "file", 14), FileEntry("binary", "file", 3), FileEntry("d", "directory"),
        FileEntry("dlink", "link"), FileEntry("fifo", "other"), FileEntry("link", "link"), FileEntry("near", "link"),
    ])  # fmt: skip
    deep = await found["list_files"]("./d/", recursive=True)
    assert [entry.path for entry in deep.entries] == ["d/b.txt", "d/e", "d/e/c.py", "d/loop", "d/up"]
    assert [e.path for e in (await tools(house, hidden=True)["list_files"](".git")).entries] == [".git/config"]
    few = await tools(house, max_entries=2)["list_files"](recursive=True)
    assert ([entry.path for entry in few.entries], few.complete) == (["a.txt", "binary"], False)


async def test_lines_are_found(house: Path) -> None:
    search = tools(house)["search_files"]
    assert await search("two") == Found([Line("a.txt", 2, "two"), Line("d/e/c.py", 1, "two = 2")])
    assert [line.path for line in (await search("TWO", ignore_case=True)).lines] == ["a.txt", "d/b.txt", "d/e/c.py"]
    assert [line.path for line in (await search("two", names="*.py")).lines] == ["d/e/c.py"]
    assert [line.path for line in (await search("two", path="d")).lines] == ["d/e/c.py"]
    assert await search("secret") == Found([])
    assert not (await tools(house, max_entries=1)["search_files"]("two")).complete
    assert "nothing to look for" in (await search.use({"text": ""})).text


async def test_a_search_ends_when_it_has_read_enough(house: Path) -> None:
    for n in range(300):
        (house / f"f{n:03}").write_text("x")
    assert not (await tools(house, max_bytes=1)["search_files"]("two")).complete


async def test_directories_too_deep_are_left_out_and_that_is_told(house: Path) -> None:
    (house / "/".join("x" * 70)).mkdir(parents=True)
    listing = await tools(house)["list_files"]("x", recursive=True)
    assert (len(listing.entries), listing.complete) == (65, False)


async def test_a_file_is_written_and_replaced_in_one_step(house: Path) -> None:
    write = tools(house)["write_file"]
    assert await write("new/deep/x.txt", "ä") == "wrote 'new/deep/x.txt', 2 bytes"
    assert (house / "new" / "deep" / "x.txt").read_text(encoding="utf-8") == "ä"
    (house / "a.txt").chmod(0o640)
    os.link(house / "a.txt", house / "other")
    assert await write("a.txt", "new") == "replaced 'a.txt', 3 bytes"
    assert ((house / "a.txt").read_text(), (house / "other").read_text()) == ("new", "one\ntwo\nthree\n")
    assert (house / "a.txt").stat().st_mode & 0o777 == 0o640
    assert not list(house.rglob("*.tmp"))
    assert "too many" in (await tools(house, max_bytes=2)["write_file"].use({"path": "a.txt", "text": "abc"})).text


async def test_a_write_that_fails_leaves_nothing_behind(house: Path) -> None:
    root = Root(house)
    with pytest.raises(TypeError):
        root.write("a.txt", "no bytes")  # type: ignore[arg-type]
    assert (house / "a.txt").read_text() == "one\ntwo\nthree\n"
    assert not list(house.rglob("*.tmp"))


async def test_approval_concerns_what_is_written(house: Path) -> None:
    found = tools(house, approve=True)
    assert (await found["read_file"].use({"path": "a.txt"})).ok
    with answers(lambda question: question.prompt == "Run write_file(path='x', text='y')?"):
        assert (await found["write_file"].use({"path": "x", "text": "y"})).ok
        assert not (await found["write_file"].use({"path": "z", "text": "y"})).ok
    assert [tool.approve for tool in files(house, approve=True)] == [True] * 3


@pytest.fixture
def swapped(house: Path) -> Iterator[Path]:
    """A root in which `d` is, again and again, a directory and then a link that leads out."""
    (house / "d").rename(house / "aside")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            try:
                (house / "aside").rename(house / "d")
                (house / "d").rename(house / "aside")
                (house / "d").symlink_to(house.parent / "outside")
                (house / "d").unlink()
            except OSError:  # while there was none, the tool made one of its own
                shutil.rmtree(house / "d", ignore_errors=True)

    (house / "aside" / "secret").write_text("harmless")
    thread = threading.Thread(target=swap)
    thread.start()
    yield house
    stop.set()
    thread.join()


@pytest.mark.slow
def test_a_directory_that_is_exchanged_for_a_link_lets_nobody_out(swapped: Path) -> None:
    root, read = Root(swapped), set[str]()
    for n in range(2000):
        try:
            read.add(read_with(root, "d/secret"))
            root.write("d/new", str(n).encode())
        except (OSError, AccessRefused):
            continue
    assert read <= {"harmless"}
    assert not (swapped.parent / "outside" / "new").exists()


def test_descriptors_are_closed(house: Path) -> None:
    root = Root(house)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
    for path in ("a.txt", "d/e/c.py", "link", "dlink/x", "fifo", "gone", "d/e/gone", "../x"):
        for use in (read_with, list_with):
            try:
                use(root, path)
            except (OSError, ToolError):
                continue
    after = len(os.listdir("/proc/self/fd")) if before else 0
    assert after == before


def test_what_is_no_directory_is_refused(house: Path) -> None:
    with refused(ConfigError, f"{str(house / 'a.txt')!r} is no directory"):
        files(house / "a.txt")
    with pytest.raises(ConfigError, match="max_bytes=0"):
        files(house, max_bytes=0)
