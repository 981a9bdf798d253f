"""Marked places are written anew, and nothing else; a wrong marker is refused with its line."""

import pytest

from fastformers.errors import InputError
from fastformers.jobs.results import markdown
from fastformers.jobs.results.filed import Filed

CONTENT = {"rate": 1234.56, "share": 0.0549, "drop": -0.005, "name": "x", "tiny": 6.12e-4}
CONTENT["none"] = float("nan")
TABLE = "<!-- results: table y -->\n| b |\n<!-- end -->\n"


def rewrite(text):
    return markdown.rewrite(
        text,
        "A.md",
        render=lambda view, names: f"| {view} {' '.join(names)} |\n",
        load=lambda name: Filed(name=name, content=CONTENT),
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("**9<!--m.rate:,.1f--> rows/s**", "**1,234.6<!--m.rate:,.1f--> rows/s**"),
        ("9,999.9<!--m.rate:.0f-->x", "1235<!--m.rate:.0f-->x"),
        ("at 99%<!--m.share:.1%-->.", "at 5.5%<!--m.share:.1%-->."),
        ("at 99<!--m.share:.2p--> of 100", "at 5.49<!--m.share:.2p--> of 100"),
        ("(-1.5<!--m.drop:+.2p-->)", "(-0.50<!--m.drop:+.2p-->)"),
        ("83-86<!--m.rate:.0f-->", "83-1235<!--m.rate:.0f-->"),
        ("1.0e-03<!--m.tiny:.1e-->", "6.1e-04<!--m.tiny:.1e-->"),
        ("9 and 9<!--m.rate-->", "9 and 1234.56<!--m.rate-->"),
    ],
)
def test_a_figure_is_replaced_alone(before, after):
    assert rewrite(before) == after
    assert rewrite(after) == after


def test_a_table_is_replaced_as_a_whole():
    text = "a\n<!-- results: table x y-* -->\nold 1<!--m.rate-->\n\nold\n<!-- end -->\nb\n"
    after = "a\n<!-- results: table x y-* -->\n| table x y-* |\n<!-- end -->\nb\n"
    assert rewrite(text) == after
    assert [(place.line, place.names) for place in markdown.places(after)] == [(2, ("x", "y-*"))]
    assert markdown.unmarked(f"1<!--m.rate-->x, 2x\n{after}") == "#x, 2x\na\n\nb\n"
    assert markdown.without_markers(after) == "a\n| table x y-* |\nb\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a\nx <!--m.rate-->\n", "A.md:2: <!--m.rate-->: is neither behind a figure"),
        ("a\n<!-- result: table x -->\n<!-- end -->\n", "A.md:2: <!-- result: table x -->"),
        ("<!-- results: table x -->\n| a |\n", "A.md:1"),
        ("a\n\n<!-- end -->\n", "A.md:3"),
        ("1<!--m.speed:.1f-->", "A.md:1: m.speed: no speed in it"),
        ("\n1<!--m.name-->", "A.md:2: 'x' is no number"),
        ("1<!--m.rate:.1y-->", "A.md:1: format .1y"),
        # A second marker of a line, one that a line's end breaks, and one that nothing closes.
        ("a\n1<!--m.rate--> 2 <!--m.rate-->\n", "A.md:2: <!--m.rate-->: is neither behind"),
        ("a\n1<!--m.rate\n:.1f-->\n", "A.md:2: <!--m.rate: is neither behind a figure"),
        ("1<!--m.rate:.1f\n", "A.md:1: <!--: is neither behind a figure"),
        # A table without an end does not take what stands before the next one with it.
        (f"<!-- results: table x -->\n| a |\n\nprose\n\n{TABLE}", "A.md:1: <!-- results: table x"),
        (f"<!-- results: table x -->\n{TABLE}<!-- end -->\n", "A.md:1: <!-- results: table x"),
        # What would be no figure the next time.
        ("1<!--m.none:.1f-->", "A.md:1: m.none: 'nan' is no figure"),
        ("1<!--m.rate:_.1f-->", "A.md:1: m.rate: '1_234.6' is no figure"),
    ],
)
def test_a_wrong_marker_is_refused_with_its_line(text, reason):
    with pytest.raises(InputError) as error:
        rewrite(text)
    assert str(error.value).startswith(reason)
