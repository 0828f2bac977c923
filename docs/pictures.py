"""Pictures of a trace as people see it, for looking at and for the documentation: ``python docs/pictures.py FOLDER``.

It runs a small pipeline, writes its tree, its page, its chart and its stored form to FOLDER, and takes pictures of the
terminal and of the page, light and dark, at the width of a desk and of a phone. The pictures need Chromium (Debian's
package ``chromium``); without one it says so and writes the rest.
"""

import argparse
import asyncio
import html
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout that this file is in, installed or not

from mai import Parallel, TraceHandle, capture, module
from mai.views.tree import Piece, pieces

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--virtual-time-budget=5000",
)  # fmt: skip
SCHEMES = {"light": "1", "dark": "0"}  # as --blink-settings=preferredColorScheme= has them
DESK, PHONE = (1000, 560), (390, 760)
TERMINALS = {"desk": (100, (860, 440)), "phone": (44, (390, 440))}  # columns, and the size of the picture
PALETTES = {
    "light": {"back": "#ffffff", "text": "#1d2129", "green": "#1a7f45", "red": "#c3262c", "yellow": "#a15c00",
              "magenta": "#7b4ba0", "cyan": "#0f7486", "blue": "#1f5fc4", "faint": "#6b737e"},
    "dark": {"back": "#15181d", "text": "#e4e7eb", "green": "#4cc38a", "red": "#ff7b7b", "yellow": "#f0b050",
             "magenta": "#c39be0", "cyan": "#5cc5d8", "blue": "#7fb0ff", "faint": "#8b939e"},
}  # fmt: skip
ROLES = {
    "ok": "green", "timeout": "yellow", "cancelled": "magenta", "abandoned": "magenta",
    "skipped": "faint", "suspended": "blue", "replayed": "cyan", "cached": "cyan", "running": "blue", "lines": "faint",
    "facts": "faint",
    "name": "text", "error": "red",
}  # fmt: skip


# ---------------------------------------------------------------- what is shown: a pipeline in which much happens

lines = iter(["busy", "free"] * 2)  # of the search; for two runs


@module
async def understand(question: str) -> str:
    """Find out what the question is about."""
    await asyncio.sleep(0.12)
    return question.lower()


@module(retry=3)
async def search_web(question: str) -> list[str]:
    """Search; the first time the line is busy."""
    await asyncio.sleep(0.07)
    if next(lines) == "busy":
        raise ConnectionError("the line is busy")
    return [f"{question} {n}" for n in range(4)]


@module(timeout=0.18)
async def search_archive(question: str) -> list[str]:
    """Search where nobody answers in time."""
    await asyncio.sleep(9)
    return [question]


@module
def search_files(question: str) -> list[str]:
    """Search in a worker thread."""
    return [question] * 2


@module
async def rank(found: dict[str, Any]) -> list[str]:
    """Put all that was found into one list."""
    await asyncio.sleep(0.03)
    return [hit for hits in found.values() if isinstance(hits, list) for hit in hits]


@module
async def read(hit: str) -> str:
    """Read one hit."""
    await asyncio.sleep(0.05 + len(hit) % 3 / 50)
    return hit


@module
async def write(texts: list[str]) -> AsyncIterator[str]:
    """Write the answer, word by word."""
    for text in texts:
        await asyncio.sleep(0.04)
        yield text


def traced() -> TraceHandle[Any]:
    """Run the pipeline and return its handle."""
    search = Parallel(web=search_web, archive=search_archive, files=search_files, on_error="collect")
    answer = (understand >> search >> rank >> read.map(concurrency=3).with_(name="read all") >> write).with_(
        name="answer"
    )
    with capture(sizes=True) as trace:
        for _ in range(2):  # the first run of a process also imports what it needs
            answer.run("Why is the sky blue?")
    return trace.runs[1]


# ---------------------------------------------------------------- pictures


def terminal_page(handle: TraceHandle[Any], columns: int, palette: dict[str, str]) -> str:
    """Return a page that looks as a terminal does."""
    lines = ("".join(_span(piece, palette) for piece in line) for line in pieces(handle, columns))
    look = f"margin:0;background:{palette['back']};color:{palette['text']}"
    font = "padding:12px 14px;font:12.5px/1.35 'DejaVu Sans Mono',monospace"
    text = "\n".join(lines)
    return f'<!doctype html><meta charset="utf-8"><body style="{look}"><pre style="margin:0;{font}">{text}</pre>'


def _span(piece: Piece, palette: dict[str, str]) -> str:
    return f'<span style="color:{palette[ROLES[piece.role]]}">{html.escape(piece.text)}</span>'


def framed(address: str, size: tuple[int, int]) -> str:
    """Return a page with a frame as small as a phone, since no window of a browser is."""
    look = f'width="{size[0]}" height="{size[1]}" style="border:0;display:block"'
    frame = f'<iframe src="{html.escape(address)}" {look}></iframe>'
    return f'<!doctype html><body style="margin:0;background:#8a8f98">{frame}'


def take(chromium: str, address: str, to: Path, size: tuple[int, int], scheme: str) -> None:
    """Take a picture of what is at *address*."""
    with tempfile.TemporaryDirectory() as profile:
        own = f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}", f"--screenshot={to}"
        colours = f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}"
        subprocess.run([chromium, *FLAGS, *own, colours, address], check=True, capture_output=True, timeout=120)


def pictures(chromium: str, handle: TraceHandle[Any], folder: Path) -> None:
    """Take all pictures."""
    page = (folder / "trace.html").resolve().as_uri()
    chosen = [h.name for h in handle.walk()].index("search_web")
    for scheme, palette in PALETTES.items():
        take(chromium, page, folder / f"waterfall-desk-{scheme}.png", DESK, scheme)
        take(chromium, f"{page}#call={chosen + 1}", folder / f"details-desk-{scheme}.png", DESK, scheme)
        for name, part in (("waterfall", ""), ("details", f"#call={chosen + 1}")):
            frame = folder / f"{name}-phone.html"
            frame.write_text(framed(page + part, PHONE), encoding="utf-8")
            size = max(500, PHONE[0]), PHONE[1]  # no window is narrower; what is beside the frame stays empty
            take(chromium, frame.resolve().as_uri(), folder / f"{name}-phone-{scheme}.png", size, scheme)
            frame.unlink()
        for name, (columns, size) in TERMINALS.items():
            file = folder / "terminal.html"
            file.write_text(terminal_page(handle, columns, palette), encoding="utf-8")
            take(
                chromium,
                file.resolve().as_uri(),
                folder / f"tree-{name}-{scheme}.png",
                (max(500, size[0]), size[1]),
                scheme,
            )
            file.unlink()


def main() -> int:
    """Write everything to the folder that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    given = parser.parse_args()
    folder: Path = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    handle = traced()
    (folder / "trace.html").write_text(handle.html(), encoding="utf-8")
    (folder / "trace.json").write_text(handle.to_json(indent=1), encoding="utf-8")
    (folder / "trace.mmd").write_text(handle.mermaid(), encoding="utf-8")
    (folder / "tree.txt").write_text(
        "\n".join("".join(p.text for p in line).rstrip() for line in pieces(handle, 100)) + "\n"
    )
    if given.chromium is None:
        sys.stderr.write("no pictures: there is no chromium on this machine (Debian: apt-get install chromium)\n")
    else:
        pictures(given.chromium, handle, folder)
    for file in sorted(folder.iterdir()):
        sys.stdout.write(f"{file}  {file.stat().st_size:,} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
