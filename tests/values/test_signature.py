"""Signatures: what a step takes and gives, how arguments are bound, and the input model made from it."""

import functools
import inspect
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Annotated, Any, Generic, TypeVar

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mai import CastError, ConfigError, Module, PayloadError, Sequential, module
from mai.layers.declared import declared
from tests.support import refused, simulated

T = TypeVar("T")


class Point(BaseModel):
    x: int
    y: int = 0


# ---------------------------------------------------------------- arguments


@module
async def show(a: str, b: int = 2, *rest: int, c: bool = False, **more: float) -> list[Any]:
    return [a, b, rest, c, more]


@module
async def only(a: str, /, b: int = 2, *, c: int) -> list[Any]:
    return [a, b, c]


@simulated
async def test_arguments_reach_forward_as_python_would_pass_them() -> None:
    assert await show("x") == ["x", 2, (), False, {}]
    assert await show("x", 3, 4, 5, c=True, d=1.5) == ["x", 3, (4, 5), True, {"d": 1.5}]
    assert await show(a="x", b=1) == ["x", 1, (), False, {}]
    assert await only("x", c=1) == ["x", 2, 1]


@simulated
async def test_each_argument_is_cast_by_the_type_of_its_parameter() -> None:
    assert await show("x", "3", "4", c="yes", d="1.5") == ["x", 3, (4,), True, {"d": 1.5}]
    with pytest.raises(CastError) as caught:
        await show("x", 1, 2, "many")
    assert (caught.value.where, caught.value.expected, caught.value.step_id) == ("rest", "int", "show")
    with pytest.raises(CastError) as caught:
        await show("x", d="much")
    assert (caught.value.where, caught.value.expected) == ("d", "float")


WRONG_CALLS = [
    (lambda: only(c=1), "'a'"),
    (lambda: only("x"), "'c'"),
    (lambda: only("x", 1, 2, c=3), "too many|at most 2"),
    (lambda: only("x", 1, b=2, c=3), "'b'"),
    (lambda: only(a="x", c=1), "'a'"),
    (lambda: only.with_(c=1)(), "'a'"),
]


@pytest.mark.parametrize(("call", "what"), WRONG_CALLS)
@simulated
async def test_arguments_that_do_not_fit_are_refused_with_the_steps_name_and_the_parameter(
    call: Any, what: str
) -> None:
    with pytest.raises(ConfigError, match=f"^only.*({what})") as caught:
        await call()
    assert caught.value.__notes__ == ["mai: in only"]


@simulated
async def test_an_unknown_argument_is_named_with_the_near_miss() -> None:
    @module
    async def find(query: str, size: int = 1) -> str:
        return query

    with refused(ConfigError, "find has no parameter 'sise'; did you mean 'size'?"):
        await find("x", sise=2)
    with refused(ConfigError, "find has no parameter 'zzz'; it has 'query', 'size'"):
        await find("x", zzz=2)


@pytest.mark.parametrize("setting", ["name", "timeout", "total_timeout", "inline", "isolate", "tags"])
@simulated
async def test_a_setting_given_at_the_call_is_refused_with_the_way_to_write_it(setting: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await only("x", c=1, **{setting: 2})
    assert str(caught.value).startswith(f"only has no parameter {setting!r}: it is a setting; ")
    assert f"await m.with_({setting}=...)(x)" in str(caught.value)


@simulated
async def test_forward_may_have_parameters_called_like_settings() -> None:
    @module
    async def book(name: str, timeout: int = 3) -> str:
        return f"{name} {timeout}"

    assert await book("ann", timeout=5) == "ann 5"
    with pytest.raises(
        ConfigError, match=r"^book: 'name' is a setting and a parameter of forward; give it at the call"
    ):
        book.with_(name="x")
    with pytest.raises(ConfigError, match=r"^book: 'timeout' is a setting and a parameter of forward"):
        book.with_(timeout=2)
    assert await book.with_(total_timeout=2)("ann") == "ann 3"


@simulated
async def test_a_parameter_that_takes_any_name_also_takes_the_names_of_settings_at_the_call() -> None:
    assert await show("x", timeout=2) == ["x", 2, (), False, {"timeout": 2.0}]


# ---------------------------------------------------------------- defaults by with_


@simulated
async def test_a_default_set_by_with_is_cast_and_the_call_may_override_it() -> None:
    five = show.with_(b="5")
    assert await five("x") == ["x", 5, (), False, {}]
    assert await five("x", 6) == ["x", 6, (), False, {}]
    assert await five("x", b=7) == ["x", 7, (), False, {}]
    assert await show("x") == ["x", 2, (), False, {}]


@simulated
async def test_defaults_pile_up_and_the_last_wins() -> None:
    assert await show.with_(b=5, c=True).with_(b=6)("x") == ["x", 6, (), True, {}]


@simulated
async def test_a_default_may_fill_required_positional_only_and_unknown_parameters() -> None:
    assert await only.with_(c=9)("x") == ["x", 2, 9]
    assert await only.with_(a="y", c=9)() == ["y", 2, 9]
    assert await show.with_(extra=1)("x") == ["x", 2, (), False, {"extra": 1.0}]
    assert await show.with_(extra=1)("x", extra=2) == ["x", 2, (), False, {"extra": 2.0}]


@simulated
async def test_positional_only_defaults_keep_their_order_however_they_were_given() -> None:
    @module
    async def pair(a: int, b: int, /, c: int = 0) -> list[int]:
        return [a, b, c]

    assert await pair.with_(b=2, a=1)() == [1, 2, 0]
    assert await pair.with_(a=1).with_(b=2)() == [1, 2, 0]
    assert await pair.with_(b=2).with_(a=1)() == [1, 2, 0]
    assert await pair.with_(b=2)(1) == [1, 2, 0]
    with pytest.raises(ConfigError, match=r"^pair.*'a'"):
        await pair.with_(b=2)()


@simulated
async def test_a_positional_only_default_may_stand_behind_one_of_forwards_own() -> None:
    @module
    async def three(a: int, b: int = 2, c: int = 3, /) -> list[int]:
        return [a, b, c]

    assert await three.with_(c=9)(1) == [1, 2, 9]
    assert await three.with_(c=9)(1, 5) == [1, 5, 9]


@simulated
async def test_a_positional_only_parameter_and_an_open_one_may_share_a_name() -> None:
    @module
    async def tag(a: int, /, **more: int) -> list[Any]:
        return [a, more]

    assert await tag(1, a=2) == [1, {"a": 2}]
    with pytest.raises(ConfigError, match=r"^tag.*'a'"):
        await tag(a=2)


def test_a_default_that_does_not_fit_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"^show: 'b' must be int, not str 'many'") as caught:
        show.with_(b="many")
    assert isinstance(caught.value.__cause__, CastError)


# ---------------------------------------------------------------- what cannot be a step


def test_a_forward_without_parameters_is_refused_when_the_class_is_made() -> None:
    with pytest.raises(ConfigError, match=r"^Nothing: forward takes no input; a step needs at least one parameter"):

        class Nothing(Module):
            async def forward(self) -> str:
                return ""

    with pytest.raises(ConfigError, match=r"^nothing: forward takes no input"):

        @module
        def nothing() -> str:
            return ""


def test_something_without_a_signature_is_refused() -> None:
    class Odd:
        __signature__ = "no"

        def __call__(self, x: int) -> int:
            return x

    with pytest.raises(ConfigError, match=r"^Odd: <.*Odd.*> cannot be a step's forward: "):
        module(Odd())


@simulated
async def test_an_annotation_that_only_a_later_local_could_meet_is_named() -> None:
    class Late(Module):
        async def forward(self, x: "Later") -> "Later":
            return x

    class Later(BaseModel):
        n: int

    with refused(ConfigError, "Late: forward names an unknown type: name 'Later' is not defined"):
        await Late()(Later(n=1))


class Eager(Module):
    async def forward(self, x: "Defined") -> "Defined":
        return x


@module
async def eager(x: "Defined") -> int:
    return x.n


class Defined(BaseModel):
    n: int


@simulated
async def test_an_annotation_of_the_module_may_be_defined_later() -> None:
    assert await Eager()({"n": 1}) == Defined(n=1)
    assert await eager({"n": 2}) == 2
    assert Eager().Out is Defined


@simulated
async def test_an_annotation_that_never_exists_is_named_when_first_used() -> None:
    class Lost(Module):
        async def forward(self, x: "Nowhere") -> int:  # type: ignore[name-defined]  # noqa: F821
            return 1

    @module
    async def lost(x: "Nowhere") -> int:  # type: ignore[name-defined]  # noqa: F821
        return 1

    with refused(ConfigError, "Lost: forward names an unknown type: name 'Nowhere' is not defined"):
        await Lost()(1)
    with pytest.raises(ConfigError, match=r"^lost: .* an unknown type: name 'Nowhere' is not defined"):
        await lost(1)


def test_an_annotation_that_cannot_be_evaluated_is_refused_and_not_taken_for_none() -> None:
    with pytest.raises(ConfigError, match=r"^odd: "):

        @module
        async def odd(x: "int | 'Point'") -> int:
            return 1


# ---------------------------------------------------------------- colours


class Adder:
    async def __call__(self, n: int) -> int:
        return n + 1


class Plain:
    def __call__(self, n: int) -> int:
        return n + 1


@functools.wraps(Adder.__call__)
async def wrapped(self: Any, n: int) -> int:
    return n + 1


@functools.cache
def cached(n: int) -> int:
    return n + 1


async def add(n: int, by: int = 1) -> int:
    return n + by


@pytest.mark.parametrize(
    "step",
    [
        Adder(),
        Plain(),
        Adder().__call__,
        functools.partial(add, by=1),
        functools.partial(functools.partial(add), by=1),
        functools.partial(wrapped, None),
        cached,
        lambda n: add(n),
        (1).__add__,
    ],
)
@simulated
async def test_any_callable_can_be_a_step(step: Any) -> None:
    assert await module(step)(2) == 3


@pytest.mark.parametrize(
    ("step", "value", "result"),
    [(str.upper, "a", "A"), (len, "abc", 3), (int, "5", 5),
     (dict, [(1, 2)], {1: 2}), (sorted, [2, 1], [1, 2]), (max, [2, 1], 2), (repr, 1, "1"), (str, 1, "1"),
     (print, "", None)],
)  # fmt: skip
@simulated
async def test_builtins_types_and_methods_can_be_steps(
    step: Any, value: Any, result: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await module(step)(value) == result


@simulated
async def test_a_classmethod_that_returns_self_can_be_a_step() -> None:
    validate = module(Point.model_validate)
    assert await validate({"x": 1}) == Point(x=1)
    assert await (validate >> Point.model_dump)({"x": 1}) == {"x": 1, "y": 0}


def test_a_type_as_a_step_gives_that_type_and_a_method_of_a_type_takes_it() -> None:
    assert module(int).Out is int
    assert module(str.upper).In.model_fields["self"].annotation is str
    assert (module(len) >> int).Out is int


def test_partial_keeps_the_types_of_what_remains() -> None:
    step = module(functools.partial(add, by=2))
    assert step.Out is int
    assert step.In.model_fields["n"].annotation is int


@simulated
async def test_generators_join_text_and_list_everything_else() -> None:
    @module
    async def words(text: str) -> AsyncIterator[str]:
        for word in text.split():
            yield word

    @module
    def parts(data: bytes) -> Iterator[bytes]:
        yield data[:1]
        yield data[1:]

    @module
    def numbers(n: int) -> Generator[int, None, None]:
        yield from range(n)

    @module
    async def untyped(n):  # type: ignore[no-untyped-def]
        for i in range(n):
            yield str(i)

    @module
    async def unparametrised(n: int) -> AsyncIterator:  # type: ignore[type-arg]
        for i in range(n):
            yield i

    assert (words.Out, parts.Out, numbers.Out, untyped.Out) == (str, bytes, list[int], Any)
    assert await words("to be") == "tobe"
    assert await words("") == ""
    assert await parts(b"abc") == b"abc"
    assert await numbers(3) == [0, 1, 2]
    assert await numbers(0) == []
    assert await untyped(2) == "01"
    assert await untyped(0) == []
    assert await unparametrised(2) == [0, 1]


@simulated
async def test_chunks_that_are_not_of_their_type_are_cast_or_refused() -> None:
    @module
    async def numbers(n: int) -> AsyncIterator[int]:
        yield "1"  # type: ignore[misc]
        yield n

    @module
    async def wrong(n: int) -> AsyncIterator[int]:
        yield "one"  # type: ignore[misc]

    assert await numbers(2) == [1, 2]
    with pytest.raises(CastError) as caught:
        await wrong(1)
    assert (caught.value.where, caught.value.expected) == ("return", "list[int]")


@simulated
async def test_a_text_stream_with_another_chunk_is_an_error_that_names_the_step() -> None:
    @module
    async def words(n: int) -> AsyncIterator[str]:
        yield n  # type: ignore[misc]

    with pytest.raises(CastError) as caught:
        await words(1)
    assert (caught.value.step_id, caught.value.where, caught.value.expected) == ("words", "return", "str")


# ---------------------------------------------------------------- In, Out, schema, payload


class Search(Module):
    async def forward(self, query: str, k: Annotated[int, Field(ge=1)] = 3, *, where: Point | None = None) -> list[str]:
        return [query] * k


def test_in_has_a_field_for_each_parameter_with_its_type_and_default() -> None:
    fields = Search.In.model_fields
    assert list(fields) == ["query", "k", "where"]
    assert fields["query"].is_required()
    assert fields["k"].default == 3
    assert Search.In(query="x").model_dump() == {"query": "x", "k": 3, "where": None}
    assert Search.In is Search().In is Search().with_(timeout=2).In
    assert Search().with_(k=2).In(query="x").model_dump() == {"query": "x", "k": 2, "where": None}
    assert Search.In.__name__ == "Search.In"


def test_in_refuses_what_forward_does_not_take() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Search.In(query="x", limit=2)
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        Search.In(query="x", k=0)


def test_in_of_a_forward_with_rest_parameters_takes_them() -> None:
    made = show.In(a="x", rest=[1, "2"], other=2)
    assert made.model_dump() == {"a": "x", "b": 2, "rest": (1, 2), "c": False, "other": 2}


def test_out_is_the_declared_type_or_any() -> None:
    @module
    async def bare(x):  # type: ignore[no-untyped-def]
        return x

    @module
    async def none(x: int) -> None: ...

    assert (Search.Out, Search().Out, bare.Out, none.Out) == (list[str], list[str], Any, type(None))
    assert bare.In(x=object).model_fields_set == {"x"}


def test_schema_is_the_json_schema_of_the_input() -> None:
    schema = Search.schema()
    assert schema == Search().schema() == Search.In.model_json_schema()
    assert schema["title"] == "Search"
    assert schema["required"] == ["query"]
    assert schema["properties"]["k"] == {"default": 3, "minimum": 1, "title": "K", "type": "integer"}
    assert schema["additionalProperties"] is False


def test_parameters_with_the_names_of_pydantic_and_private_ones_work() -> None:
    @module
    async def odd(model_dump: int, copy: int, schema: str, _hidden: int = 1) -> int:
        return model_dump + copy + _hidden

    made = odd.In(model_dump=1, copy=2, schema="s", _hidden=3)
    assert odd.schema()["properties"].keys() == {"model_dump", "copy", "schema", "_hidden"}
    assert made.model_fields_set == {"model_dump", "copy", "schema", "p_hidden"}


def test_payload_is_the_checked_input() -> None:
    payload = Search.payload(query="x", k="2")
    assert payload.value == Search.In(query="x", k=2)
    assert payload.json() == b'{"query":"x","k":2,"where":null}'
    with pytest.raises(CastError) as caught:
        Search().payload(query="x", k="many")
    assert "k\n" in str(caught.value)
    assert (caught.value.where, caught.value.expected) == ("payload", "Search.In")
    assert isinstance(caught.value.__cause__, ValidationError)


def test_payload_of_an_input_without_json_fails_when_it_is_written() -> None:
    @module
    async def draw(canvas: Adder) -> int:
        return 1

    with pytest.raises(PayloadError):
        draw.payload(canvas=Adder()).json()


def test_a_composite_takes_one_value_named_like_its_first_steps() -> None:
    line = Sequential(Search(), len)
    assert list(line.In.model_fields) == ["query"]
    assert line.Out is Any
    assert (line >> int).Out is int


def test_the_repr_is_the_signature() -> None:
    assert repr(only) == "<only(a: str, /, b: int = 2, *, c: int) -> list[Any]>"
    assert repr(Search().with_(name="find")).startswith("<find(query: str, k: Annotated[int, ")


def test_a_generic_module_takes_what_comes() -> None:
    class Hold(Module, Generic[T]):
        async def forward(self, value: T) -> T:
            return value

    assert Hold().Out is T


def test_in_keeps_arbitrary_types() -> None:
    @module
    async def draw(canvas: Adder, at: Point) -> int:
        return 1

    canvas = Adder()
    assert draw.In(canvas=canvas, at={"x": 1}).canvas is canvas  # type: ignore[attr-defined]
    assert inspect.isclass(draw.In)
    assert isinstance(draw.In.model_config, dict | ConfigDict)  # type: ignore[misc]


# ---------------------------------------------------------------- wrappers


async def fetch(count: int) -> str:
    return "ab" * count


def compute(count: int) -> str:
    return "ab" * count


def chunks(count: int) -> Iterator[str]:
    yield from ["ab"] * count


async def stream(count: int) -> AsyncIterator[str]:
    for _ in range(count):
        yield "ab"


FUNCTIONS: list[tuple[Any, str]] = [
    (fetch, "coroutine"), (compute, "plain"), (chunks, "generator"), (stream, "async generator"),
]  # fmt: skip


@pytest.mark.parametrize(("fn", "colour"), FUNCTIONS)
@simulated
async def test_a_plain_wrapper_is_a_plain_step_unless_it_passes_on_a_generator(fn: Any, colour: str) -> None:
    @functools.wraps(fn)
    def wrapper(count: int) -> Any:
        ran.append(threading.current_thread())
        return fn(count)

    ran = list[threading.Thread]()
    for step in (module(wrapper), module(functools.partial(wrapper))):
        assert declared(step.__wrapped__, "step").colour == (colour if "generator" in colour else "plain")
        assert (step.Out, await step(2)) == (str, "abab")
    assert (threading.current_thread() in ran) == (colour == "async generator")


@pytest.mark.parametrize(("fn", "colour"), FUNCTIONS)
@simulated
async def test_an_async_wrapper_is_a_coroutine_function_whatever_it_wraps(fn: Any, colour: str) -> None:
    @functools.wraps(fn)
    async def wrapper(count: int) -> Any:
        out = fn(count)
        if colour == "coroutine":
            return await out
        return [chunk async for chunk in out] if colour == "async generator" else list(out)

    step = module(wrapper)
    assert declared(wrapper, "step").colour == "coroutine"
    if "generator" in colour:  # what the wrapper makes of the chunks is not what the wrapped function declares
        assert (step.Out, await step(2)) == (Any, ["ab", "ab"])
    elif colour == "coroutine":
        assert (step.Out, await step(2)) == (str, "abab")


@pytest.mark.parametrize(("fn", "colour"), FUNCTIONS)
@simulated
async def test_a_cached_function_is_run_like_the_function(fn: Any, colour: str) -> None:
    assert declared(functools.cache(fn), "step").colour == colour
    assert await module(functools.cache(fn))(2) == "abab"


@simulated
async def test_a_callable_object_that_wraps_a_function_is_run_as_its_own_call_says() -> None:
    class Retried:
        def __init__(self, fn: Any) -> None:
            self.fn = fn
            functools.update_wrapper(self, fn)

        async def __call__(self, count: int) -> Any:
            return self.fn(count)

    step = module(Retried(compute))
    assert (declared(Retried(compute), "step").colour, step.Out, await step(2)) == ("coroutine", str, "abab")
