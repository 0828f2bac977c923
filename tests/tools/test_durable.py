"""Tools under a durable engine: a Tool is a flow, so its question and its inner step are what is recorded."""

import asyncio
from pathlib import Path

import pytest

from mai import Module
from mai.durable import SQLiteEngine
from mai.tools import Tool

pytestmark = pytest.mark.slow


class Agent(Module, flow=True):
    """Uses a tool that fails, and then one that needs approval."""

    def __init__(self, ran: list[str]) -> None:
        def look(path: str) -> str:
            """Look."""
            ran.append("look")
            raise LookupError(path)

        def wipe(path: str) -> str:
            """Wipe."""
            ran.append("wipe")
            return f"wiped {path}"

        self.look, self.wipe = Tool(look), Tool(wipe, approve=True)

    async def forward(self, path: str) -> str:
        looked = await self.look.use({"path": path})
        wiped = await self.wipe.use({"path": path})
        return f"{looked.text}; {wiped.text}"


@pytest.mark.parametrize(
    ("answer", "ends", "does"),
    [
        (True, "wiped x", ["look", "wipe"]),
        (False, "error: ApprovalRefused: wipe was not run: a person refused it", ["look"]),
    ],
)
async def test_a_run_leaves_memory_while_a_person_thinks_and_no_tool_runs_twice(
    tmp_path: Path, answer: bool, ends: str, does: list[str]
) -> None:
    ran: list[str] = []
    async with SQLiteEngine(tmp_path / "runs.db", linger=0.01) as engine:
        handle = engine.start(Agent(ran), "x", run_id="r")
        async for _ in handle:
            if handle.questions:
                break
        while (await engine.info("r")).status != "waiting":
            await asyncio.sleep(0.01)
        assert ran == ["look"]
        await engine.answer("r", answer)
        assert await engine.result("r") == f"error: LookupError: x; {ends}"
        assert ran == does
        recorded = [record.path for record in await engine.history("r")]
    asked = ["Agent/wipe/ask!asked", "Agent/wipe/ask"]
    assert recorded == ["Agent/look/look", *asked, *(["Agent/wipe/wipe"] if answer else [])]
