"""The command's manners: help, exit codes, clean pipes, and a light start."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest
from command_line import json_of, lksegment, sentence_of

from LKSegmentLib.cli.commands import COMMANDS
from LKSegmentLib.cli.main import build_parser
from LKSegmentLib.version import __version__


def test_every_command_has_help_with_an_example_that_parses() -> None:
    parser = build_parser()
    for command in COMMANDS:
        lines = [line.strip() for line in command.example.splitlines() if line.strip().startswith("lksegment")]
        assert lines, command.name
        for line in lines:
            arguments = parser.parse_args(shlex.split(line)[1:])
            assert arguments.command is command


def test_help_names_all_commands_and_ends_with_an_example() -> None:
    done = lksegment("--help")
    assert done.returncode == 0 and done.stderr == ""
    for command in COMMANDS:
        assert f"    {command.name} " in done.stdout
    assert "example:\n  lksegment " in done.stdout


def test_help_of_a_command_shows_its_example() -> None:
    done = lksegment(COMMANDS[0].name, "--help")
    assert done.returncode == 0
    assert "example:\n  lksegment " in done.stdout


def test_version() -> None:
    assert lksegment("--version").stdout.strip() == f"lksegment {__version__}"


_TRAIN = ("train", "click", "--out", "nowhere", "--minutes")


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("frobnicate",),
        ("networks", "a", "b"),
        ("networks", "--no-such-option"),
        (*_TRAIN, "soon"),
        (*_TRAIN, "inf"),
    ],
)
def test_wrong_arguments_are_one_sentence_and_code_2(words: tuple[str, ...]) -> None:
    sentence = sentence_of(lksegment(*words), 2)
    assert "--help" in sentence and "_positive" not in sentence, "no name of a function of ours"


def test_unknown_network_and_model_name_what_there_is() -> None:
    assert "dnet" in sentence_of(lksegment("networks", "unet"), 2)
    assert "no_such_model" in sentence_of(lksegment("models", "no_such_model"), 2)


def test_networks_as_json_and_as_words_tell_the_same() -> None:
    found = json_of("networks")["networks"]
    names = [row["name"] for row in found]
    assert "dnet" in names and "lka_unet" in names
    words = lksegment("networks")
    assert words.returncode == 0 and words.stderr == "" and "\x1b" not in words.stdout
    listed, counting = words.stdout.split("\n\n")
    assert [line.split()[0] for line in listed.splitlines()[2:]] == names
    assert "Multiply-accumulates" in counting and all(row["status"] in listed for row in found)
    assert json_of("networks", "dnet")["params"] == next(row["params"] for row in found if row["name"] == "dnet")


def test_importing_the_library_or_asking_for_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, LKSegmentLib as lk\n"
        "from LKSegmentLib.cli.main import build_parser\n"
        "build_parser().format_help()\n"
        "print([name for name in ('torch', 'SimpleITK', 'vtk', 'slicer', 'rich', 'scipy') if name in sys.modules])\n"
        "lk.read_volume, lk.Volume, lk.networks, lk.packages\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "False"]


def test_unknown_name_of_the_library_lists_the_known_ones() -> None:
    import LKSegmentLib

    with pytest.raises(AttributeError, match="ClickSession.*read_volume"):
        _ = LKSegmentLib.no_such_name
    assert set(LKSegmentLib.__all__) == set(dir(LKSegmentLib))


def test_a_reader_that_leaves_early_is_no_error_message() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "from LKSegmentLib.cli.main import console; console()", "networks", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait()
