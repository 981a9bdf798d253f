"""What a parser refuses is shown without secrets and without commands to the terminal."""

import pytest

from fastformers.jobs.console.cli import main


def test_values_of_flags_and_names_of_commands_only_show(capsys):
    for arguments in (
        ["score", "c", "--bundle", "b", "--output", "o", "--limit", "s3://KEY:SECRET@bucket"],
        ["score", "c", "--bundle", "b", "--output", "o", "s3://KEY:SECRET@b\x1b[2J\x9b"],
        ["status", "o", "s3://KEY:SECRET@bucket", "\x1b[2Jx\ny"],
        ["s3://KEY:SECRET@bucket/a\x1b[2J"],
    ):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        shown = capsys.readouterr().err
        assert "s3://***@b" in shown
        assert not {"\x1b", "\x9b"} & set(shown)
        assert ": error: " in shown.splitlines()[-1]
