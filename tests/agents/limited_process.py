"""One process of a durable run of an agent with a limit: ``python limited_process.py JOURNAL URL``; says its end."""

import asyncio
import sys

from mai.agents import Agent
from mai.durable import SQLiteEngine
from mai.models import BudgetExhausted, Model


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def main(journal: str, url: str) -> None:
    agent = Agent(Model("tiny", url=url, stream=False), [add], name="a", max_tokens=200)
    async with SQLiteEngine(journal, ttl=0.5, modules=[agent]) as engine:
        try:
            await engine.start(agent, "go", run_id="run-1")
        except BudgetExhausted as error:
            print(error.spent, error.needed)


asyncio.run(main(*sys.argv[1:]))
