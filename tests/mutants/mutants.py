"""The mutants: each breaks one promise of the kernel by one small edit, and some test has to notice.

An edit that no longer finds its text is an error, so this list ages together with the kernel. ``tests`` are run first;
if they let the mutant live, the whole suite gets its chance.
"""

from dataclasses import dataclass

LAWS = "tests/laws/"
CORE = "tests/core/"
LAYERS = "tests/layers/"


@dataclass(frozen=True)
class Mutant:
    """One broken promise: in *file*, *old* (which occurs exactly once) becomes *new*."""

    promise: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTANTS = (
    # ---- contextvars
    Mutant(
        "nothing that a step does to a contextvar leaks",
        "mai/core/drive.py",
        "    y = f.y = ctx.run(next, body, DONE)\n",
        "    y = f.y = next(body, DONE)\n",
        (LAWS + "test_trees.py",),
    ),
    Mutant(
        "a worker thread sees the caller's contextvars",
        "mai/core/threads.py",
        "self.context.run(self.call)",
        "self.call()",
        (LAWS + "test_trees.py",),
    ),
    Mutant(
        "auth is never shown",
        "mai/core/frame.py",
        "auth: Any = Field(default=None, repr=False, exclude=True)",
        "auth: Any = Field(default=None)",
        (CORE + "test_frame.py",),
    ),
    # ---- cancellation
    Mutant(
        "a step that swallows a cancel does not win",
        "mai/core/drive.py",
        "    if task.cancelling() > before:\n        swallowed",
        "    if False:\n        swallowed",
        (LAWS + "test_cancel.py",),
    ),
    Mutant(
        "a timeout takes its own cancel back, and an outer one in the same tick wins",
        "mai/core/drive.py",
        "timer.task.uncancel() <= timer.before",
        "timer.task.uncancel() >= 0",
        (CORE + "test_call.py", LAWS + "test_cancel.py"),
    ),
    Mutant(
        "every branch has ended before the call returns",
        "mai/core/gather.py",
        "for task in self.tasks if not task.done()",
        "for task in list[_Task]() if not task.done()",
        (LAWS + "test_trees.py",),
    ),
    Mutant(
        "a cancel waits for the clean-up of every branch",
        "mai/core/gather.py",
        "            waits = None\n",
        "            break\n",
        (LAWS + "test_cancel.py",),
    ),
    Mutant(
        "the first failure cancels the other branches",
        "mai/core/gather.py",
        "[task.cancel() for task in self.tasks]",
        "[]",
        (LAWS + "test_cancel.py", CORE + "test_gather.py"),
    ),
    Mutant(
        "a branch that cancels itself is never a success with a hole",
        "mai/layers/parallel.py",
        "        for error in (*failed, *self._errors):\n            raise error\n",
        "        for error in failed:\n            raise error\n",
        (CORE + "test_gather.py", LAYERS + "test_parallel.py"),
    ),
    # ---- deadlines
    Mutant(
        "nothing starts once the deadline has passed",
        "mai/core/call.py",
        "    return inherited is not None and now >= inherited\n",
        "    return False\n",
        (CORE + "test_frame.py", CORE + "test_call.py"),
    ),
    Mutant(
        "a deadline of one step does not hit the next",
        "mai/core/drive.py",
        "            timer.handle.cancel()\n",
        "            pass\n",
        (LAWS + "test_deadlines.py",),
    ),
    Mutant(
        "a deadline is never later than the inherited one",
        "mai/core/call.py",
        "spec.limit is not None and (inherited is None or now + spec.limit < inherited)",
        "spec.limit is not None",
        (LAWS + "test_deadlines.py",),
    ),
    Mutant(
        "a deadline set by a scope holds for the calls inside",
        "mai/core/call.py",
        "    if inherited is not None and inherited != armed:\n        f.timer = PENDING\n",
        "",
        (LAWS + "test_deadlines.py",),
    ),
    # ---- errors
    Mutant(
        "an error gains one note, at the innermost step",
        "mai/core/drive.py",
        '    innermost = getattr(error, "__mai_trace__", None) not in lost\n',
        "    innermost = True\n",
        (LAWS + "test_trees.py",),
    ),
    Mutant(
        "two failures at once are both raised",
        "mai/layers/parallel.py",
        "        if len(failed) > 1:\n            raise ExceptionGroup(",
        "        if len(failed) > 999:\n            raise ExceptionGroup(",
        (LAWS + "test_trees.py",),
    ),
    Mutant(
        "on_error='collect' lets every branch run to its end",
        "mai/layers/parallel.py",
        "            self._values[key] = value if error is None else error\n            return True\n",
        "            self._values[key] = value if error is None else error\n            return error is None\n",
        (LAWS + "test_trees.py",),
    ),
    Mutant(
        "StopIteration out of a plain step is an error, not a hang",
        "mai/core/threads.py",
        'RuntimeError("the step raised StopIteration") if isinstance(error, StopIteration) else error',
        "error",
        (CORE + "test_threads.py",),
    ),
    # ---- limits
    Mutant(
        "never more branches at once than the limit",
        "mai/core/gather.py",
        "return self.limit is not None and self.live >= self.limit",
        "return self.limit is not None and self.live > self.limit",
        (LAWS + "test_limits.py",),
    ),
    Mutant(
        "a branch that ends gives its place back",
        "mai/core/gather.py",
        "        self.group.live -= self.held  # the next turn",
        "        self.group.live -= 0  # the next turn",
        (CORE + "test_gather.py",),
    ),
    Mutant(
        "a parked branch holds no place",
        "mai/layers/delay.py",
        "        slot.leave()\n        try:\n",
        "        slot.strands += 1\n        slot.leave()\n        try:\n",
        (LAWS + "test_limits.py",),
    ),
    # ---- threads
    Mutant(
        "an abandoned thread does not count against the limit",
        "mai/core/threads.py",
        "            self.abandoned += running\n",
        "            self.abandoned += 0\n",
        (CORE + "test_threads.py",),
    ),
    Mutant(
        "a plain step that is cancelled while queued never runs",
        "mai/core/threads.py",
        '            if job.state == "queued":\n',
        '            if job.state != "done":\n',
        (CORE + "test_threads.py",),
    ),
    Mutant(
        "a blocked worker serves its own nested jobs",
        "mai/core/threads.py",
        "if door is not None and door.open and len(self._jobs) >= free:",
        "if False:",
        (CORE + "test_threads.py",),
    ),
    # ---- settings and values
    Mutant(
        "with_ never changes its module",
        "mai/layers/module.py",
        "        clone = copy.copy(self)\n",
        "        clone = self\n",
        (LAWS + "test_settings.py",),
    ),
    Mutant(
        "a value that is of its type already stays the very object",
        "mai/core/casts.py",
        "made.validator.isinstance_python(value, strict=True)",
        "False",
        (LAWS + "test_casts.py",),
    ),
    Mutant(
        "isolate gives each call its own copy",
        "mai/core/call.py",
        "copy.deepcopy((args, kwargs)) if spec.deep else",
        "copy.copy((args, kwargs)) if spec.deep else",
        (LAYERS + "test_module.py", CORE + "test_call.py"),
    ),
    Mutant(
        "NaN never becomes null",
        "mai/core/payload.py",
        "json.dumps(plain,",
        "json.dumps(None if plain != plain else plain,",
        (LAWS + "test_payload.py",),
    ),
    # ---- traces
    Mutant(
        "the handle tree has the shape of the calls",
        "mai/core/trace.py",
        "    children = parent.children\n    if not children:\n",
        "    children = [*parent.children]\n    if not children:\n",
        (LAWS + "test_trees.py",),
    ),
    Mutant(
        "the step ids of repeated calls differ",
        "mai/layers/module.py",
        "owner.seen.get(key, 0) + 1",
        "1",
        (LAWS + "test_trees.py",),
    ),
    Mutant(
        "every span is ended, also that of a failed call",
        "mai/core/drive.py",
        "    close_span(f, h, error, innermost=innermost)\n",
        "",
        (CORE + "test_spans.py",),
    ),
    Mutant(
        "below an unsampled root no tracer is asked again",
        "mai/core/call.py",
        "if p.span is not None or (owner is ROOT and has_provider()):",
        "if has_provider():",
        (CORE + "test_spans.py",),
    ),
    # ---- threads, places, doors and wiring
    Mutant(
        "so many abandoned threads are enough",
        "mai/core/threads.py",
        "if self.abandoned >= self.most:",
        "if self.abandoned > self.most:",
        (CORE + "test_threads.py",),
    ),
    Mutant(
        "an engine that is entered again keeps its threads",
        "mai/core/engine.py",
        "        self.threads.closed = False\n",
        "",
        (CORE + "test_threads.py",),
    ),
    Mutant(
        "a forked child has threads of its own",
        "mai/core/threads.py",
        "        owner.forget()\n",
        "        owner\n",
        (CORE + "test_doors.py",),
    ),
    Mutant(
        "an engine entered by two tasks serves each until it leaves",
        "mai/core/engine.py",
        "        self._tokens.remove(own)",
        "        self._tokens.clear()",
        (CORE + "test_engine.py",),
    ),
    Mutant(
        "the strands of a place go on together",
        "mai/core/gather.py",
        "others of this place along\n            self.turn.set()",
        "others of this place along\n            ...",
        (CORE + "test_gather.py",),
    ),
    Mutant(
        "a place of another loop is none",
        "mai/core/gather.py",
        " and slot.group.loop is asyncio.get_running_loop()",
        "",
        (CORE + "test_gather.py",),
    ),
    Mutant(
        "a cancel before a worker's first step is heard",
        "mai/core/gather.py",
        "        worker.send(None)  # up to its first pause",
        "        # up to its first pause",
        (CORE + "test_gather.py",),
    ),
    Mutant(
        "a task that outlives its branch gives no place back",
        "mai/core/gather.py",
        "if self.held and self.strands <= 0:",
        "if self.strands <= 0:",
        (CORE + "test_gather.py",),
    ),
    Mutant(
        "only a callback that is seen twice is told",
        "mai/core/watch.py",
        "if known is None or known() is not callback:",
        "if known is None:",
        (CORE + "test_watch.py",),
    ),
    Mutant(
        "a block is told once",
        "mai/core/watch.py",
        "None if step else since",
        "since",
        (CORE + "test_watch.py",),
    ),
    Mutant(
        "the digest does not follow the order of a set",
        "mai/core/payload.py",
        " if issubclass(cls, Set) else members",
        " if False else members",
        (CORE + "test_payload.py",),
    ),
    Mutant(
        "a wrapper is run as what it is",
        "mai/layers/declared.py",
        'return wrapped if own == "inline"',
        "return wrapped if own",
        (CORE + "test_signature.py",),
    ),
    Mutant(
        "wiring refuses a value for a parameter that with_ has set while another one lacks its own",
        "mai/layers/checks.py",
        "        if p.name != first:\n",
        "        if False:\n",
        (LAYERS + "test_sequential.py",),
    ),
    # ---- started runs and their readers
    Mutant(
        "a stream ends when its run ends, whatever the cause",
        "mai/core/events.py",
        "        for bell in (self.posted, self.read, self.over):\n            bell.ring()\n",
        "        self.over.ring()\n",
        (CORE + "test_events.py",),
    ),
    Mutant(
        "an async generator is closed before its call ends",
        "mai/core/events.py",
        "async with aclosing(stream()) as source:",
        "async with __import__('contextlib').nullcontext(stream()) as source:",
        (CORE + "test_streams.py",),
    ),
    Mutant(
        "a generator in a thread is closed there after a cancel",
        "mai/core/events.py",
        "        gone.set()\n",
        "",
        (CORE + "test_streams.py",),
    ),
    Mutant(
        "a reader that is dropped frees the generator",
        "mai/core/control.py",
        "    __del__ = close\n",
        "",
        (CORE + "test_events.py",),
    ),
    Mutant(
        "a generator does not run away from its readers",
        "mai/core/events.py",
        "cursor > number - AHEAD",
        "cursor > number - MAX_EVENTS",
        (CORE + "test_events.py",),
    ),
    Mutant(
        "no change is missed between a look and the wait",
        "mai/core/events.py",
        "                if not ready():\n                    await turn\n",
        "                await turn\n",
        (CORE + "test_events.py",),
    ),
    Mutant(
        "what was started in a call is cancelled when it fails",
        "mai/core/control.py",
        "        if error is not None and not run.ended:\n            run.cancel()\n",
        "        pass\n",
        (CORE + "test_runs.py",),
    ),
    Mutant(
        "a second cancel does not cut a join short",
        "mai/core/control.py",
        "            except asyncio.CancelledError:\n                if error is None:\n                    raise\n",
        "            except asyncio.CancelledError:\n                raise\n",
        (CORE + "test_runs.py",),
    ),
    Mutant(
        "the engine holds what was started, and joins it",
        "mai/core/engine.py",
        "    engine.runs.add(control)\n",
        "",
        (CORE + "test_runs.py",),
    ),
    Mutant(
        "detached work does not inherit a deadline",
        "mai/core/engine.py",
        '{"deadline": None, "door": None} if apart else {}',
        "{}",
        (CORE + "test_runs.py",),
    ),
    Mutant(
        "a failure that nobody asks for is told",
        "mai/core/control.py",
        "if self.error is not None and not (self.heard",
        "if self.error is None and not (self.heard",
        (CORE + "test_runs.py",),
    ),
    Mutant(
        "a subscriber that fails harms nobody",
        "mai/core/engine.py",
        "            except Exception:  # a subscriber's",
        "            except ArithmeticError:  # a subscriber's",
        (CORE + "test_engine.py",),
    ),
    Mutant(
        "an answer goes to one question only, and only once",
        "mai/core/control.py",
        "if known.pop(asked.id, None) is None:",
        "if known.pop(asked.id, None) is known:",
        ("tests/layers/test_ask.py",),
    ),
    # ---- Switch, Loop, Map, Race
    Mutant(
        "what the source of a Map does to a contextvar stays with it",
        "mai/layers/map.py",
        "self._inside(next, self._source, _END)",
        "next(self._source, _END)",
        (LAYERS + "test_map.py",),
    ),
    Mutant(
        "a generator that is mapped over is closed however the call ends",
        "mai/layers/map.py",
        "            work.close()\n",
        "            pass\n",
        (LAYERS + "test_map.py",),
    ),
    Mutant(
        "an item is taken only when there is a place for it",
        "mai/core/gather.py",
        "not (self.full() or self.waiting or self.work.more())",
        "not self.work.more()",
        (LAYERS + "test_map.py",),
    ),
    Mutant(
        "an async source goes on when an item parks",
        "mai/core/gather.py",
        "                self.spawn()\n            self.place.ring()",
        "                self.spawn()",
        (LAYERS + "test_map.py",),
    ),
    Mutant(
        "the others end when a race is won",
        "mai/layers/race.py",
        "            self.winner, self.value = key, value\n        return False",
        "            self.winner, self.value = key, value\n        return True",
        (LAYERS + "test_race.py",),
    ),
    Mutant(
        "until is asked about what the turn gave",
        "mai/layers/loop.py",
        "apart(self.until, state)",
        "apart(self.until, x)",
        (LAYERS + "test_loop.py",),
    ),
)
