"""One process of the durable research agent: ``python agent_process.py WORK URL [ANSWER]``.

It starts the run, or goes on with it, and says ``asked`` when a person is asked; with ANSWER it answers, and says
``done``. What it opens in ``WORK/notes`` stands in ``WORK/opened``, a line each; its spans in ``WORK/spans.PID``.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

import agent
from mai import telemetry
from mai.durable import SQLiteEngine


def note(file: Path, line: str) -> None:
    """Append *line*: it is there, whole, even if the process is killed next."""
    with file.open("a", encoding="utf-8") as out:
        out.write(f"{line}\n")


class Spans(SpanExporter):
    """Writes each span to a file when it ends."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        for span in spans:
            note(self.file, span.to_json(indent=None))
        return SpanExportResult.SUCCESS


async def main(work: Path, url: str, answer: str | None) -> None:
    notes = work / "notes"

    def opened(event: str, args: tuple[object, ...]) -> None:
        if event == "open" and str(args[0]).startswith(f"{notes}{os.sep}"):
            note(work / "opened", Path(str(args[0])).name)

    sys.addaudithook(opened)
    telemetry.configure(exporter=Spans(work / f"spans.{os.getpid()}"), batch=False)
    asked = agent.research.payload(
        question="Are deadlines inherited?", folder=notes, model="local", url=url, key_from="OPENAI_API_KEY",
        save=work / "report.md",
    )  # fmt: skip
    async with SQLiteEngine(work / "runs.db", ttl=0.5, linger=60.0, modules=[agent.research]) as engine:
        handle = engine.start(agent.research, asked, run_id="research-1")
        async for _ in handle:
            if handle.questions:
                print("asked", flush=True)
                if answer is None:
                    await asyncio.Event().wait()  # until it is killed
                await engine.answer("research-1", answer == "yes")
                break
        report = await engine.result("research-1")
        print("done", report.model_dump_json(), flush=True)


asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None))
