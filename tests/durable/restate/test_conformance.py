"""The conformance suite, on a real Restate server."""

import pytest

from tests.durable.conformance import Bench, Conformance
from tests.durable.restate_servers import Servers


@pytest.mark.slow
class TestRestate(Conformance):
    """A journal in a server, in real time."""

    @pytest.fixture
    def bench(self, server: Servers) -> Bench:
        from tests.durable.restate.bench import RestateBench  # needs the extra

        return RestateBench(server.admin, server.ingress)
