"""`mai plan`: load the target and print its plan."""

from mai import views
from mai.cli.output import failure_text, say, write_result
from mai.cli.run import BAD_USAGE, OK
from mai.cli.target import import_paths, load
from mai.cli.usage import BadUsage, check_format
from mai.errors import WiringError

__all__ = ["FORMATS", "plan_target"]

FORMATS = ("text", "mermaid", "dot", "json")


def plan_target(written: str, form: str, *, with_traceback: bool = False) -> int:
    """Print the plan of the target *written* in the format *form*, and return the exit code."""
    try:
        check_format(form, FORMATS)
        with import_paths(written):
            module = load(written)
            result = module.plan_json() if form == "json" else views.draw(module.plan(), form)
            write_result(result)
    except WiringError as error:  # a graph that is not finished
        say(f"mai plan: {error}")
        return BAD_USAGE
    except BadUsage as problem:
        say(f"mai plan: {problem}")
        if with_traceback and problem.__cause__ is not None:
            say(failure_text(problem.__cause__, with_traceback=True))
        return BAD_USAGE
    return OK
