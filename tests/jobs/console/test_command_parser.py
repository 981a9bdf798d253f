"""What a parser refuses is shown without secrets and without commands to the terminal."""

import pytest

from jobs.console.cli import COMMANDS, main


@pytest.mark.parametrize("command", ["score", "cost", "status", "finetune", "launch", "scale"])
def test_what_is_refused_only_shows(capsys, command):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--nonsense", "s3://KEY:SECRET@bucket/a", "\x1b[2Jx\ny"])
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert "SECRET" not in shown
    assert "\x1b[2J" not in shown
    assert shown.splitlines()[-1].startswith(f"fastformers {command}: error: ")


def test_values_of_flags_and_names_of_commands_only_show(capsys):
    for arguments in (
        ["score", "c", "--bundle", "b", "--output", "o", "--limit", "s3://KEY:SECRET@bucket"],
        ["score", "c", "--bundle", "b", "--output", "o", "s3://KEY:SECRET@b\x1b[2J\x9b"],
        ["s3://KEY:SECRET@bucket/a\x1b[2J"],
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        shown = capsys.readouterr().err
        assert "s3://***@b" in shown
        assert not {"\x1b", "\x9b"} & set(shown)
    assert "score" in COMMANDS
