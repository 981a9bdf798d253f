from fastformers.ablation.report import ERROR, cells, render_markdown
from fastformers.ablation.summary import summarize


def test_cells_are_in_the_units_of_the_papers_table(make_result):
    assert cells(make_result(734.35)) == (
        *("step of 734.35 s", "734.35", "1,234.57x", "1.50x", "74.01", "4,223", "734.85"),
    )
    bare = cells(make_result(0.0123, accuracy=None, total_s=None, usd_per_100m=0.01234))
    assert bare[1:] == ("0.0123", "1,234.57x", "1.50x", "-", "0.0123", "-")


def test_a_row_that_was_scaled_says_from_what_and_how_sure_it_is(make_result, ablation, conditions):
    scaled = make_result(734.35, timed_rows=2, standard_error_s=12.3)
    assert cells(scaled)[:2] == ("step of 734.35 s, scaled from 2 of 4 texts", "734.35 ± 12.30")
    whole = [make_result(8.0), make_result(4.0)]
    assert ERROR in render_markdown(summarize([scaled, *whole], ablation, conditions))
    assert "±" not in render_markdown(summarize(whole, ablation, conditions))


def test_the_page_has_every_step_with_its_note_and_both_headlines(
    make_result, ablation, conditions
):
    results = [
        make_result(8.0),
        make_result(4.0),
        make_result(0.5),
        make_result(0.4, is_aside=True),
    ]
    page = render_markdown(summarize(results, ablation, conditions))
    lines = page.splitlines()
    assert "**16.0x over PyTorch padded to the maximum, 8.0x over PyTorch unpadded; with" in page
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 4
    assert {line.replace("\\|", "").count("|") for line in table} == {8}
    assert table[4].startswith("| step of 0.5 s [3] | 0.50 |")
    assert "3. how 0.5 came" in lines
    assert "the clock starts after tokenization" in page.lower()
    assert (
        "4 texts, 100 tokens: mean 25.0, median 25, p95 38, longest 40. 16 cores of Imagined 9000, "
        "torch 2.0, onnxruntime 1.30, 2026-07-20, median of 3 runs. Price: 0.6770 USD per hour "
        "(Standard_F16s_v2)."
    ) in lines
