"""Taking up the runs of a journal that nobody carries on: as many at once as there are places for."""

import logging
from typing import TYPE_CHECKING

from mai.core.clock import clock
from mai.durable.records import ENDED, RunInfo
from mai.errors import MaiError

if TYPE_CHECKING:
    from mai.durable.engine import DurableEngine

__all__ = ["Uptake"]


class Uptake:
    """Takes up what a journal tells of, and looks for more when there is a place again.

    What finds no place stays in the journal, where other processes find it as well.
    """

    def __init__(self, engine: "DurableEngine") -> None:
        self._engine = engine
        self._looks = self._more = False
        self._said: dict[str, str] = {}  # why a run cannot be taken up, once it was told

    async def told(self, run_id: str) -> None:
        """Take up a run of which something was told, if there is a place for it."""
        places = self._engine.places
        if places.is_full():
            await self.look()
        else:
            places.take()
            await self._adopt(run_id)

    async def look(self) -> None:
        """Take up what can be taken up, one after the other, each as soon as there is a place."""
        self._more = True
        if self._looks:
            return
        self._looks = True
        try:
            while self._more and not self._engine.closing:
                self._more = await self._look()
        finally:
            self._looks = False

    async def _look(self) -> bool:
        """Take up a number of runs; say whether there may be more."""
        engine, self._more = self._engine, False
        limit = engine.places.most + engine.known() + len(self._said)  # of these, some are not to be taken up
        found = await engine.journal.due(clock.wall(), limit, targets=engine.codes.targets)
        for run_id in found:
            if not await engine.places.turn(self):
                return False
            await self._adopt(run_id)
        return self._more or len(found) >= limit

    async def _adopt(self, run_id: str) -> None:
        """Take a run up if it can be, or give its place back; a journal that fails is told, and keeps no other run."""
        taken = False
        try:
            taken = await self._take_up(run_id)
        except MaiError as error:
            if self._said.get(run_id) != str(error):
                self._said[run_id] = str(error)
                logging.getLogger("mai").warning("run %r cannot be taken up: %s", run_id, error)
        else:
            self._said.pop(run_id, None)
        finally:
            if not taken:
                self._engine.places.give()

    async def _take_up(self, run_id: str) -> bool:
        """Drive a run that nobody drives and whose time has come, if its code is here."""
        engine = self._engine
        if engine.drives(run_id):
            return False
        info = await engine.journal.run(run_id)
        code = None if info is None else engine.codes.find(info)
        if info is None or code is None or info.status in ENDED or info.status == "needs_attention":
            return False
        if not await self._is_free(info) or engine.closing or engine.drives(run_id):  # since it was asked for
            return False
        engine.adopt(info, code)
        return True

    async def _is_free(self, info: RunInfo) -> bool:
        """Say whether a run waits for somebody to carry it on."""
        if info.due is not None and info.due <= clock.wall():
            return True
        if info.status == "pending":
            return info.due is None or info.cancelled
        if info.status == "running":
            return info.lease_until is None or info.lease_until <= clock.wall()
        if info.cancelled:
            return True
        wanted, signals = set(info.waits.values()), await self._engine.journal.signals(info.run_id)
        return any(one.path is None and one.name in wanted for one in signals)
