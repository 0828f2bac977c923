"""Views: what a trace looks like to a person.

A view turns a finished or running :class:`~mai.types.TraceHandle` into text; it changes nothing, needs no optional
library and never fails on what a step was called or what an error said. ``str(handle)`` is :func:`tree`.
"""

from mai.views.plan import chains, critical_path, diff, draw, stages, text
from mai.views.tree import runs, tree

__all__ = ["chains", "critical_path", "diff", "draw", "runs", "stages", "text", "tree"]
