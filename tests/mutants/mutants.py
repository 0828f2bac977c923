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
        "for task in (*self.tasks, *self.fresh) if not task.done()",
        "for task in self.fresh if not task.done()",
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
        "                self.live -= 1  # the next turn",
        "                self.live -= 0  # the next turn",
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
        "if owner.span is not None or (owner is ROOT and has_provider()):",
        "if has_provider():",
        (CORE + "test_spans.py",),
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
        "(self.full() or self.waiting or self.work.more())",
        "self.work.more()",
        (LAYERS + "test_map.py",),
    ),
    Mutant(
        "an async source goes on when an item parks",
        "mai/core/gather.py",
        "                self.spawn()\n            self.ask()",
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
