"""What the command refuses; `test_judge.py` tries mutants."""

import pytest

from tests.mutants import run


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--modules", "cluster/shards", "cluster/dinner"], "cluster/dinner: has no module of"),
        (["--sample", "0"], "--sample 0: give at least 1"),
    ],
)
def test_a_mistake_is_refused_by_its_flag(capsys, arguments, what):
    with pytest.raises(SystemExit) as caught:
        run.main(arguments)
    assert caught.value.code == 2
    assert what in capsys.readouterr().err


def test_what_was_never_measured_has_no_survivors_to_try_again(capsys, monkeypatch):
    monkeypatch.setattr(run, "read_measured", dict)
    assert run.main(["--again"]) == 2
    assert "none of these modules was measured yet" in capsys.readouterr().out
