import pytest

from tests.typed_figures import paragraphs, typed_in


@pytest.mark.parametrize(
    ("text", "figure"),
    [
        ("it is 3 times as fast", "3 times"),
        ("speed-ups of #x, 1.8x and #x", "1.8x"),
        ("reads #, 22,976 and # tokens/s there", "22,976"),
        ("(30% of the time)", "30%"),
        ("lost -2 points", "-2 points"),
        ("accuracy was 89.30", "89.30"),
        ("905 of 964 rows/s", "905"),
        ("at 30,183 shards a second", "30,183"),
        ("takes 12 s or 40 ms, 2 core-seconds", "12 s"),
        ("| BoolQ | 27 MB |", "27 MB"),
        ("0.02 USD per million", "0.02"),
    ],
)
def test_a_figure_that_is_typed_is_found(text, figure):
    assert any(figure in found for found in typed_in(text, ()))
    assert typed_in(text, [text]) == []


@pytest.mark.parametrize(
    "text",
    [
        "#x, # times and # of # rows/s",
        "a student of 4 x 312, two cores, 60,000 texts, 2026-11-26",
        "Ray 2.60, Python 3.11 to 3.13, torch 2.13.0 and arXiv:2010.13382",
        "with its 95% interval and 90% intervals",
    ],
)
def test_what_is_marked_and_what_is_no_measurement_is_left_alone(text):
    assert typed_in(text, ()) == []


def test_a_snippet_excuses_its_own_figure_alone():
    (found,) = typed_in("up to 20 s, and 20 s on IMDB", ["up to 20 s"])
    assert found.endswith("20 s on IMDB")


def test_prose_is_read_by_paragraphs_without_code_and_flags():
    lines = ["takes 5", "s with `--x 1.5", "--y 2%`", "", "| `--seed N` | 10% |", "[a](b-1.5.md)"]
    assert list(paragraphs(lines)) == ["takes 5 s with `", "[a]"]
