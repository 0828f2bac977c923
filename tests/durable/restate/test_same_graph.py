"""The same graphs on a file, on a server and in memory: only the line with the engine is another one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mai.durable import SQLiteEngine
from mai.durable.restate import RestateEngine
from mai.types import Payload
from tests.durable.restate_servers import Servers
from tests.examples.conftest import tree  # noqa: F401 (a fixture; it makes the examples importable)

pytestmark = pytest.mark.slow

Engines = dict[str, Callable[[], Any]]


@pytest.fixture
def engines(server: Servers, tmp_path: Path) -> Engines:
    """One for each engine, with a journal of its own."""
    prefix = f"{tmp_path.name}."
    return {
        "file": lambda: SQLiteEngine(tmp_path / "runs.db"),
        "server": lambda: RestateEngine(server.admin, ingress=server.ingress, port=0, prefix=prefix),
    }


async def outcomes(module: Any, given: Any, engines: Engines) -> dict[str, Any]:
    """Return what comes of a run on each engine."""
    found: dict[str, Any] = {}
    for name, make in engines.items():
        async with make() as engine:
            found[name] = await engine.start(module, Payload.of(given, type(given)), run_id="one")
            steps = [record.path for record in await engine.history("one") if record.kind == "step"]
            assert len(steps) > 1
            found[f"steps on {name}"] = sorted(steps)
    return found


async def test_the_main_job(engines: Engines, tree: Path) -> None:  # noqa: F811
    from review import review

    m = review.with_(flow=True)
    wanted = await m(tree)
    found = await outcomes(m, m.In(directory=tree), engines)
    assert found["file"] == found["server"] == wanted
    assert found["steps on file"] == found["steps on server"]


async def test_the_durable_example(engines: Engines, tree: Path) -> None:  # noqa: F811
    from index_files import index

    wanted = await index(tree)
    found = await outcomes(index, index.In(folder=tree), engines)
    assert found["file"] == found["server"] == wanted
    assert found["steps on file"] == found["steps on server"]
