"""Commands in README and docs are ones that there are, with options that they have: quickly, and those within the text,
too. Those in blocks are run by the acceptance tests."""

from __future__ import annotations

import argparse
import re
import shlex

import pytest
from airflow.cli import cli_parser
from edge_worker import commandline
from handbook import PAGES, commands, inline

from edge_otel.cli import get_cli_commands

OURS = re.compile(r"(airflow edge|edge-worker) [^…|]+$")
COMMANDS = sorted({code for page in PAGES for code in (*inline(page), *commands(page)) if OURS.match(code)})


@pytest.fixture(scope="module")
def airflow():
    """The parser of ``airflow edge``."""
    top = argparse.ArgumentParser(prog="airflow")
    below = top.add_subparsers(required=True)
    for command in get_cli_commands():
        cli_parser._add_command(below, command)
    return top


def wrong(parser, arguments, capsys):
    """Return what a parser says against these arguments; nothing where only some are missing."""
    try:
        parser.parse_args(arguments)
    except SystemExit as ended:
        said = capsys.readouterr().err
        # Text may name a command without its arguments, or an option without its value.
        if ended.code == 0 or "expected one argument" in said:
            return ""
        if "arguments are required" not in said:
            return said
        # What is missing is said first, before options that there are not.
        with pytest.raises(SystemExit):
            parser.parse_args([word for word in arguments if not word.startswith("-")] + ["--help"])
        known = re.findall(r"(?<![\w-])--?[a-z][\w-]*", capsys.readouterr().out, re.IGNORECASE)
        options = {word.partition("=")[0] for word in arguments if word.startswith("-") and word != "--"}
        return " ".join(options.difference(known))
    return ""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_one_that_there_is(airflow, command, capsys):
    program, *arguments = shlex.split(command)
    assert wrong(airflow if program == "airflow" else commandline.parser(), arguments, capsys) == ""


@pytest.mark.parametrize(
    "command",
    ["edge workers maintenance comment --coment x", "edge workers queues drop", "edge add-worker-queues --bogus"],
)
def test_a_command_that_there_is_not_is_seen(airflow, command, capsys):
    assert wrong(airflow, shlex.split(command), capsys) != ""


def test_there_are_such_commands():
    assert {"airflow edge queues", "edge-worker drain --wait"} <= set(COMMANDS)
