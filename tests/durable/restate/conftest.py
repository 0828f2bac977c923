"""One real server for the tests of this folder that need one."""

from collections.abc import Iterator

import pytest

from tests.durable.restate_servers import Servers, find_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A server, where there is one."""
    pytest.importorskip("restate", reason="needs the extra restate")
    pytest.importorskip("granian", reason="needs the extra restate")
    if find_server() is None:
        pytest.skip("no restate-server: npm install @restatedev/restate-server")
    with Servers(tmp_path_factory.mktemp("restate")) as servers:
        yield servers
