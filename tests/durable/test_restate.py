"""The conformance suite, on a real Restate server."""

from collections.abc import Iterator

import pytest

from tests.durable.conformance import Bench, Conformance
from tests.durable.restate_servers import Servers, find_server

pytest.importorskip("restate")
pytest.importorskip("granian")
if find_server() is None:
    pytest.skip("no restate-server: npm install @restatedev/restate-server", allow_module_level=True)

from tests.durable.restate_bench import RestateBench  # (needs the extra)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A server that the tests of this file share."""
    with Servers(tmp_path_factory.mktemp("restate")) as servers:
        yield servers


class TestRestate(Conformance):
    """A journal in a server, in real time."""

    @pytest.fixture
    def bench(self, server: Servers) -> Bench:
        return RestateBench(server.admin, server.ingress)
