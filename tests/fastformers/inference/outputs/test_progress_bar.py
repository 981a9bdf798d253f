"""A bar or calls, where the caller asks for them."""

from fastformers.inference.outputs.progress_bar import showing_progress


def test_a_function_is_told_how_many_are_done():
    calls = []
    with showing_progress(lambda *numbers: calls.append(numbers), 10, done=3) as advance:
        advance(2)
        advance(5)
    assert calls == [(5, 10), (10, 10)]


def test_a_bar_counts_on_stderr(capsys):
    with showing_progress(True, 10, done=3) as advance:
        advance(7)
    shown = capsys.readouterr()
    assert "10/10" in shown.err and "100%" in shown.err
    assert shown.out == ""


def test_nothing_is_shown_unasked(capsys):
    with showing_progress(False, 10) as advance:
        advance(10)
    assert capsys.readouterr() == ("", "")
