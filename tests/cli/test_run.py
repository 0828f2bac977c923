"""`mai run` in this process: which input reaches which parameter, what is printed, and the exit code."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mai.cli import main
from tests.cli.support import Done

Mai = Callable[..., Done]


def test_plain_words_are_the_one_str_parameter(mai: Mai) -> None:
    assert [*mai("run", "flow.py:shout", "hello", "wide", "world")] == [0, "HELLO WIDE WORLD!\n", ""]


def test_named_values_reach_each_parameter(mai: Mai) -> None:
    done = mai("run", "flow.py:shout", "--mark=?", "--text", "a b")
    assert (done.code, done.out) == (0, "A B?\n")


def test_a_json_object_gives_all_parameters(mai: Mai) -> None:
    done = mai("run", "flow.py:search", '{"query": "x", "k": "1"}')
    assert (done.code, json.loads(done.out)) == (0, [{"text": "x False []", "stars": 0}])


def test_a_json_value_is_the_single_required_parameter(mai: Mai) -> None:
    assert mai("run", "flow.py:total", "[1, 2, 3]").out == "6\n"
    assert mai("run", "flow.py:total", "[1,", "2]").out == "3\n"
    assert mai("run", "flow.py:stars", '{"text": "t", "stars": 5}').out == "5\n"
    assert mai("run", "flow.py:triple", "14").out == "42\n"
    assert mai("run", "flow.py:echo", '"quoted text"').out == "quoted text\n"


@pytest.mark.parametrize("text", ["5", "1e3", "true", "null", "[1]", "-", "{}x", "NaN", "'"])
def test_text_that_looks_like_json_stays_text_for_a_str(mai: Mai, text: str) -> None:
    assert mai("run", "flow.py:echo", f"--value={text}").out == text + "\n"


@pytest.mark.parametrize("text", ["5", "1e3", "true", "null", "[1]"])
def test_a_word_that_is_json_of_another_type_stays_text_for_a_str(mai: Mai, text: str) -> None:
    assert mai("run", "flow.py:echo", text).out == text + "\n"


def test_switches_are_turned_on_and_off(mai: Mai) -> None:
    def full(*words: str) -> bool:
        return "True" in mai("run", "flow.py:search", "x", *words, "--k", "1").out

    assert full("--full")
    assert full("--full", "true")
    assert full("--full=yes")
    assert not full("--no-full")
    assert not full("--full", "false")
    assert not full()
    assert "x please" in mai("run", "flow.py:search", "x", "--full", "please", "--k", "1").out


def test_a_list_parameter_takes_repeated_values_words_or_json(mai: Mai) -> None:
    expected = "x False ['a', 'b']"
    for words in (["--tags", "a", "--tags=b"], ["--tags", '["a", "b"]']):
        assert expected in mai("run", "flow.py:search", "x", "--k=1", *words).out
    assert "x False ['5']" in mai("run", "flow.py:search", "x", "--k=1", "--tags", "5").out
    assert mai("run", "flow.py:total", "1", "2", "3").out == "6\n"


def test_several_required_parameters_take_a_word_each(mai: Mai) -> None:
    assert mai("run", "flow.py:add", "3", "4").out == "7\n"
    assert mai("run", "flow.py:add", "3", "--a", "4").out == "7\n"


def test_words_after_two_dashes_are_text_whatever_they_look_like(mai: Mai) -> None:
    assert mai("run", "flow.py:shout", "--", "--loud", "-v").out == "--LOUD -V!\n"
    assert mai("run", "flow.py:shout", "--", "@ann").out == "@ANN!\n"
    assert mai("run", "flow.py:shout", "--", "-").out == "-!\n"
    assert mai("run", "flow.py:triple", "-5").out == "-15\n"


def test_input_comes_from_a_file(mai: Mai, here: Path) -> None:
    (here / "in.json").write_text('\ufeff{"text": "from file", "mark": "?"}\n', encoding="utf-8")
    (here / "in.txt").write_text("two\nlines\n", encoding="utf-8")
    (here / "data.bin").write_bytes(b"\xff\x00\n")
    assert mai("run", "flow.py:shout", "@in.json").out == "FROM FILE?\n"
    assert mai("run", "flow.py:shout", "@in.txt", "--mark", ".").out == "TWO\nLINES.\n"
    assert mai("run", "flow.py:size", "@data.bin").out == "3\n"


def test_a_json_file_is_text_for_a_str_unless_it_names_parameters(mai: Mai, here: Path) -> None:
    (here / "data.json").write_text('{"colour": 1}', encoding="utf-8")
    assert mai("run", "flow.py:shout", "@data.json", "--mark=").out == '{"COLOUR": 1}\n'
    (here / "slip.json").write_text('{"texts": "x"}', encoding="utf-8")
    done = mai("run", "flow.py:shout", "@slip.json")
    assert done.code == 2
    assert "'texts'; did you mean 'text'?" in done.err


def test_input_comes_from_standard_input(mai: Mai) -> None:
    assert mai("run", "flow.py:shout", "-", stdin=b"asked for\r\n").out == "ASKED FOR!\n"
    assert mai("run", "flow.py:shout", stdin=b"piped\n\n").out == "PIPED\n!\n"
    assert mai("run", "flow.py:shout", "--mark=?", stdin=b'{"text": "both"}').out == "BOTH?\n"
    assert mai("run", "flow.py:size", stdin=b"\xff\xfe").out == "2\n"
    assert mai("run", "flow.py:shout", "-", "--mark=?", stdin=b"").out == "?\n"


def test_standard_input_is_left_alone_when_nothing_is_missing(mai: Mai) -> None:
    assert mai("run", "flow.py:shout", "word", stdin=b"not read").out == "WORD!\n"
    assert mai("run", "flow.py:options", stdin=b"not read").out == "a []\n"


def test_empty_standard_input_is_no_input(mai: Mai) -> None:
    done = mai("run", "flow.py:shout", stdin=b"")
    assert done.code == 2
    assert "text is missing: give str as plain words, as --text VALUE, or as JSON" in done.err


def test_a_path_is_one_word(mai: Mai) -> None:
    assert mai("run", "flow.py:look", "a dir/some file", "--top", "2").out == "some file 2\n"
    done = mai("run", "flow.py:look", "a", "5")
    assert done.code == 2
    assert "path takes one word, but 2 are given: 'a', '5'; quote it, or use --name VALUE" in done.err


def test_a_parameter_called_like_an_option_is_given_as_json(mai: Mai) -> None:
    assert mai("run", "flow.py:patient", '{"timeout": 2.5, "json": true}', "--timeout", "9").out == "2.5 True\n"
    assert "timeout (by JSON)" in mai("run", "flow.py:patient", "--help").out


def test_a_parameter_without_a_type_takes_json_or_text(mai: Mai) -> None:
    assert json.loads(mai("run", "flow.py:anything", "[1, null]").out) == [1, None]
    assert mai("run", "flow.py:anything", "--value", "5").out == "5\n"
    assert mai("run", "flow.py:anything", "plain words").out == "plain words\n"
    assert mai("run", "flow.py:anything", "plain", "words").out == "plain words\n"


def test_open_parameters_take_any_name(mai: Mai) -> None:
    assert (
        mai("run", "flow.py:options", "x", "--colour", "red", "--size=5").out
        == "x [('colour', 'red'), ('size', '5')]\n"
    )
    assert mai("run", "flow.py:named", "--a", "1", "--b=2").out == "2\n"
    assert mai("run", "flow.py:named", '{"a": 1}').out == "1\n"
    assert mai("run", "flow.py:several", "--parts", "1", "--parts", "2", "--sign", "x").out == "0 (1, 2) x\n"
    assert mai("run", "flow.py:several", "7").out == "7 () \n"


def test_parameters_of_every_kind_get_their_values(mai: Mai) -> None:
    assert mai("run", "flow.py:places", "1").out == "1 2 3 4\n"
    assert mai("run", "flow.py:places", '{"a": 5, "c": 6, "_d": 7}').out == "5 2 6 7\n"
    assert mai("run", "flow.py:places", "--a=5", "--b=6", "--_d=7").out == "5 6 3 7\n"


def test_composites_run_like_any_module(mai: Mai) -> None:
    assert mai("run", "flow.py:fast", "x", "--help").code == 0
    assert mai("run", "flow.py:fast", "x").out == "9\n"
    assert json.loads(mai("run", "flow.py:both", "--json", "x").out) == ["X!", "x"]
    assert mai("run", "flow.py:kind", "--value", "12").out == "12\n"


def test_what_with_set_need_not_be_given(mai: Mai) -> None:
    assert "set False []" in mai("run", "flow.py:one").out
    assert "other" in mai("run", "flow.py:one", "other").out
    assert "default 'set'" in mai("run", "flow.py:one", "--help").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["shout", "x", "--mrk", "?"], "No such option or parameter: --mrk; did you mean 'mark'?"),
        (["shout", "x", "-v"], "No such option: -v; put -- before words that begin with a dash"),
        (["shout", "--text"], "--text needs a value"),
        (["shout", "--text", "--mark", "x"], "--text needs a value"),
        (["shout", "x", "--text", "y", "--mark", "z"], "No parameter is left for 'x': text, mark have a value already"),
        (["shout", "--text", "y", "--mark", "z", "x", "w"], "No parameter is left for 'x w'"),
        (["shout", '{"text": "x"}', "--text", "y"], "text is given twice"),
        (["shout", '{"txt": "x"}'], "No such parameter: 'txt'; did you mean 'text'?"),
        (["shout", '{"colour": "x"}'], "No such parameter: 'colour'; it has 'mark', 'text'"),
        (["shout", "{}"], "text is missing"),
        (["shout", "@nowhere.json"], "Cannot read the input file 'nowhere.json': No such file"),
        (["shout", "bad \udcff"], r"'bad \udcff' on the command line is not valid utf-8 text"),
        (["search", "x", "--k", "many"], "k = 'many' does not fit int: Input should be a valid integer"),
        (["search", "x", "--k", "1", "--k", "2"], "k = ['1', '2'] does not fit int"),
        (["triple", "1.5"], "n = '1.5' does not fit int"),
        (["stars", '{"stars": "x"}'], "doc does not fit Doc: doc.text is missing in {'stars': 'x'}"),
        (["stars", '{"text": "t", "stars": "x"}'], "doc.stars = 'x' does not fit Doc: Input should be a valid integer"),
        (["add", "1"], "b is missing: give int"),
        (["add", "1", "2", "3"], "3 words for 2 parameters (a, b)"),
        (["total", "1", "x"], "numbers takes one word, but 2 are given: '1', 'x'"),
        (["named", "x"], "'x' is given, but the target takes values by name only: --NAME VALUE"),
        (["one", "--no-tags"], "No such option or parameter: --no-tags"),
    ],
)
def test_input_that_cannot_be_used_is_refused_by_name(mai: Mai, words: list[str], said: str) -> None:
    code, out, err = mai("run", f"flow.py:{words[0]}", *words[1:])
    assert (code, out) == (2, "")
    assert err.startswith("mai run: ")
    assert said in err


def test_standard_input_that_is_not_text_is_refused(mai: Mai) -> None:
    done = mai("run", "flow.py:shout", stdin=b"ok \xff")
    assert (done.code, done.err) == (2, "mai run: standard input is not UTF-8 text: invalid start byte at byte 3\n")


def test_many_misfits_are_counted(mai: Mai) -> None:
    done = mai("run", "flow.py:total", json.dumps(["x"] * 9))
    assert done.err.count("does not fit list[int]") == 5
    assert "… and 4 more" in done.err


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_a_timeout_has_to_be_a_time(mai: Mai, seconds: str) -> None:
    done = mai("run", "flow.py:shout", "x", "--timeout", seconds)
    assert done.code == 2
    assert "give a positive number of seconds" in done.err


def test_a_timeout_that_is_no_number_is_bad_usage(mai: Mai) -> None:
    done = mai("run", "flow.py:shout", "x", "--timeout", "soon")
    assert done.code == 2
    assert "--timeout" in done.err


def test_a_result_is_printed_by_what_it_is(mai: Mai) -> None:
    assert mai("run", "flow.py:echo", "--value", "ends here\n").out == "ends here\n"
    assert mai("run", "flow.py:raw", "no line end").out == "no line end"
    assert mai("run", "flow.py:report", "Title").out == "* Title *\n"
    assert mai("run", "flow.py:point", "1.5").out == '{\n  "x": 1.5,\n  "y": -1.5\n}\n'
    assert mai("run", "flow.py:anything", '"日本"').out == "日本\n"
    assert mai("run", "flow.py:anything", '["日本"]').out == '[\n  "日本"\n]\n'
    assert mai("run", "flow.py:anything", "null").out == "null\n"
    assert mai("run", "flow.py:thing", "json").out.startswith("<module 'json'")


def test_json_is_one_line_of_the_declared_type(mai: Mai) -> None:
    assert mai("run", "flow.py:echo", "--json", "x").out == '"x"\n'
    assert mai("run", "flow.py:report", "--json", "T").out == '{"title":"T"}\n'
    assert mai("run", "flow.py:point", "nan", "--json").out == '{"x":NaN,"y":NaN}\n'


def test_the_json_of_one_run_is_the_input_of_the_next(mai: Mai) -> None:
    first = mai("run", "flow.py:echo", "--json", 'a "quoted" text')
    assert mai("run", "flow.py:echo", stdin=first.out.encode()).out == 'a "quoted" text\n'


def test_a_result_that_has_no_json_fails_as_json(mai: Mai) -> None:
    code, out, err = mai("run", "flow.py:thing", "json", "--json")
    assert (code, out) == (1, "")
    assert "PayloadError: Cannot write a module as" in err


def test_a_failed_run_says_what_and_where(mai: Mai) -> None:
    code, out, err = mai("run", "flow.py:fail", "this")
    lines = err.splitlines()
    assert (code, out) == (1, "")
    assert lines[0] == "mai run: ValueError: cannot take 'this'"
    assert lines[1].startswith("  mai: in fail (after 0.0")
    assert lines[2] == "  (--traceback shows where)"


def test_a_traceback_is_shown_when_asked_for(mai: Mai) -> None:
    done = mai("run", "--traceback", "flow.py:fail", "this")
    assert done.code == 1
    assert done.err.startswith("Traceback (most recent call last):")
    assert 'raise ValueError(f"cannot take {text!r}")' in done.err


def test_a_group_of_errors_is_shown_with_its_members(mai: Mai) -> None:
    done = mai("run", "flow.py:two", "x")
    assert "ExceptionGroup: both (2 sub-exceptions)" in done.err
    assert "  - ValueError: first\n  - KeyError: 'second'\n" in done.err


@pytest.mark.parametrize("code", [0, 3])
def test_a_step_cannot_choose_the_exit_code(mai: Mai, code: int) -> None:
    done = mai("run", "flow.py:leave", str(code))
    assert done.code == 1
    assert f"a step called sys.exit({code})" in done.err


def test_the_trace_goes_to_standard_error_after_success_and_failure(mai: Mai) -> None:
    code, out, err = mai("run", "flow.py:fast", "x", "--trace")
    assert (code, out) == (0, "9\n")
    assert [line.split()[:3] for line in err.splitlines()][:2] == [
        ["✓", "Sequential", "1"],
        ["├─", "✓", "Search"],
    ]
    code, out, err = mai("run", "flow.py:fail", "x", "--trace")
    assert (code, out) == (1, "")
    assert "✗ fail" in err


def test_the_help_of_a_target_shows_its_parameters(mai: Mai) -> None:
    code, out, err = mai("run", "flow.py:search", "--help")
    assert (code, err) == (0, "")
    assert "  Find documents.\n\n  The newest come first.\n" in out
    assert "  --query             str        required\n" in out
    assert "  --full | --no-full  bool       default False\n" in out
    assert "Result: list[Doc]\n" in out


def test_the_help_of_a_function_is_its_docstring(mai: Mai) -> None:
    assert "\n  Say it louder.\n" in mai("run", "flow.py:shout", "--help").out
    assert "Module" not in mai("run", "flow.py:both", "--help").out


def test_the_help_of_a_target_shows_defaults_and_descriptions(mai: Mai) -> None:
    out = mai("run", "flow.py:described", "--help").out
    assert "  --text  str   required; What to say\n" in out
    assert "  --file  Path  default notes.txt\n" in out


def test_help_after_two_dashes_is_text(mai: Mai) -> None:
    assert mai("run", "flow.py:shout", "--", "--help").out == "--HELP!\n"


def test_the_command_has_help_and_a_version(mai: Mai) -> None:
    assert "--timeout" in mai("run", "--help").out
    assert "run" in mai("--help").out
    assert mai("--version").out.startswith("mai ")


@pytest.mark.parametrize(
    "words", [["walk"], ["run"], ["run", "--colour", "flow.py:shout"], ["run", "flow.py:shout", "--timeout"]]
)
def test_a_command_line_that_is_none_is_bad_usage(mai: Mai, words: list[str]) -> None:
    code, out, err = mai(*words)
    assert (code, out) == (2, "")
    assert "Usage" in err


def test_the_words_of_the_process_are_taken_by_default(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["mai", "run", "flow.py:shout", "x"])
    assert main() == 0
    assert capsys.readouterr().out == "X!\n"


def test_the_import_path_is_as_before_after_a_run(mai: Mai) -> None:
    before = [*sys.path]
    assert mai("run", "flow.py:shout", "x").code == 0
    assert sys.path == before


@pytest.mark.parametrize("name", ["mai", "mai.cli"])
def test_python_dash_m_is_the_command_too(here: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(sys, "argv", ["mai", "run", "flow.py:shout"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module(name, run_name="__main__")
    assert end.value.code == 2


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_a_missing_library_is_named_with_what_to_install(
    mai: Mai, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    for name in [name for name in sys.modules if name.startswith(("mai.cli.", f"{missing}."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    code, out, err = mai("run", "flow.py:shout", "x")
    assert (code, out) == (2, "")
    assert err == f"mai: the command line needs {missing}, which is not installed: pip install 'mai-kernel[cli]'\n"


def test_another_library_that_is_missing_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("mai.cli.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "heapq", None)
    with pytest.raises(ModuleNotFoundError, match="heapq"):
        main(["run"])
