import numpy as np
import pytest

from fastformers.ablation.measure import Ablation, StepResult
from fastformers.ablation.report import cells, describe_texts, render_markdown, summarize

ABLATION = Ablation(
    steps=(), lengths_N=np.array([10, 20, 30, 40]), labels_N=None, description="a|b on c"
)


def result(seconds, **changes):
    fields = {
        "name": f"step of {seconds:g} s",
        "seconds": seconds,
        "accuracy": 0.74014,
        "usd_per_100m": 4223.4,
        "cumulative": 1234.567,
        "step": 1.5,
        "tokenization_s": 0.5,
        "total_s": seconds + 0.5,
        "timed_rows": 4,
        "runs_s": (seconds,),
        "note": f"how {seconds:g} came",
        "is_aside": False,
    }
    return StepResult(**{**fields, **changes})


def test_cells_are_in_the_units_of_the_papers_table():
    assert cells(result(734.35)) == (
        *("step of 734.35 s", "734.35", "1,234.57x", "1.50x", "74.01", "4,223", "734.85"),
    )
    bare = cells(result(0.0123, accuracy=None, total_s=None, usd_per_100m=0.01234))
    assert bare[1:] == ("0.0123", "1,234.57x", "1.50x", "-", "0.0123", "-")


def test_the_page_has_every_step_with_its_note_and_both_headlines():
    results = [result(8.0), result(4.0), result(0.5), result(0.4, is_aside=True)]
    summary = summarize(results, ABLATION)
    page = render_markdown(results, summary, measured_on="A machine.")
    lines = page.splitlines()
    assert "**16.0x over PyTorch padded to the maximum, 8.0x over PyTorch unpadded; with" in page
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 4
    assert {line.replace("\\|", "").count("|") for line in table} == {8}
    assert table[4].startswith("| step of 0.5 s [3] | 0.50 |")
    assert "3. how 0.5 came" in lines
    assert "the clock starts after tokenization" in page.lower()
    assert "4 texts, 100 tokens: mean 25.0, median 25, p95 38, longest 40. A machine." in lines


def test_tokenization_is_in_the_totals():
    summary = summarize([result(8.0), result(4.0), result(0.5)], ABLATION)
    assert summary["speedup_with_tokenization"] == pytest.approx(8.5)
    assert summary["speedup_unpadded_with_tokenization"] == pytest.approx(4.5)
    assert describe_texts(summary).startswith("4 texts, 100 tokens")
