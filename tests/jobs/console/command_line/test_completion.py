"""Shells complete commands and flags: the scripts, and what the command answers them."""

import os
import shutil
import subprocess
import sys

import pytest

from fastformers.jobs.console.cli import COMMANDS, main
from fastformers.jobs.console.command_line.completion import SHELLS


@pytest.mark.parametrize("shell", SHELLS)
def test_there_is_a_script_for_each_shell(capsys, shell, tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(["--print-completion", shell])
    script = capsys.readouterr().out
    assert ended.value.code in (0, None)
    assert "fastformers" in script and "_ARGCOMPLETE" in script
    if program := shutil.which(shell):
        (tmp_path / "script").write_text(script)
        subprocess.run([program, "-n", str(tmp_path / "script")], check=True)


def answer(line):
    """What the command says to a shell that asks for the words that could follow."""
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": "/dev/stdout",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    done = subprocess.run(
        [sys.executable, "-m", "fastformers"], env=environment, capture_output=True, text=True
    )
    return {word.strip() for word in done.stdout.split("\n")} - {""}


def test_commands_are_completed_without_loading_one():
    assert answer("fastformers s") == {"score", "status", "scale"}
    assert {*COMMANDS, "--version"} <= answer("fastformers ")


def test_flags_and_their_values_are_those_of_the_command():
    assert answer("fastformers score --max") == {
        *("--max-bad-rows", "--max-row-bytes", "--max-batch-tokens"),
    }
    assert answer("fastformers cost refresh --cloud ") == {"aws", "azure", "gcp"}
