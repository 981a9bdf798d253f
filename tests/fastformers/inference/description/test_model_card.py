import math
from dataclasses import replace

import pytest
import yaml

from fastformers.inference.bundle import DEMO_BUNDLE, open_bundle
from fastformers.inference.description.model_card import (
    OUTPUTS,
    PIPELINE_TAGS,
    card_of,
    has_own_card,
    render_card,
)
from fastformers.inference.description.stage_quality import StageQuality
from fastformers.inference.tasks import TASKS


def metadata_of(card):
    start, metadata, _ = card.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(metadata)


def rows_of(card, heading):
    section = card.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_the_metadata_are_those_of_the_hub(bundle):
    provenance = {"teacher": "org/teacher", "teacher_revision": "a1", "eval": "eval.parquet"}
    metadata = metadata_of(render_card(replace(bundle, provenance=provenance), name="mine"))
    assert metadata["library_name"] == "fastformers"
    assert metadata["pipeline_tag"] == "text-classification"
    assert metadata["tags"] == ["fastformers", "onnx", "float32"]
    assert metadata["base_model"] == "org/teacher"
    (index,) = metadata["model-index"]
    (result,) = index["results"]
    assert index["name"] == "mine"
    assert result["dataset"]["name"] == "eval.parquet"
    assert result["metrics"] == [{"type": "accuracy", "name": "accuracy", "value": 0.5}]
    assert "base_model" not in metadata_of(render_card(bundle))  # a directory of somebody's disk


def test_the_tables_say_what_the_bundle_says(bundle):
    stage = StageQuality(
        stage="quantize",
        quality=0.9,
        agreement=0.95,
        num_rows=100,
        model_bytes=2_500_000,
        seconds=1,
    )
    card = render_card(replace(bundle, stages=(stage,), labels=("a|b", "`c`")))
    expected = ["quantize", "90.00", "82.56-94.48", "95.00%", "100", "2.5"]
    assert rows_of(card, "Quality") == [expected]
    assert rows_of(card, "Labels") == [["0", "`a\\|b`"], ["1", "`` `c` ``"]]
    assert rows_of(card, "Speed") == [["2", "10,000", "20,000"], ["64", "1,000", "64,000"]]
    assert [row[0] for row in rows_of(card, "The graph")] == ["`input_ids`", "`logits`"]
    assert rows_of(card, "Origin") == [["teacher", "`random`"]]


def test_a_quality_that_is_no_number_is_not_in_the_metadata(bundle):
    broken = replace(bundle, stages=(replace(bundle.stages[0], quality=math.nan),))
    assert "model-index" not in metadata_of(render_card(broken))
    assert rows_of(render_card(broken), "Quality")[0][1:3] == ["nan", "not known"]


def test_pairs_are_shown_as_pairs(pair_bundle):
    card = render_card(pair_bundle)
    assert 'scorer.score([("a text", "another")])' in card
    assert [row[0] for row in rows_of(card, "The graph")][1] == "`token_type_ids`"


def test_a_model_without_layers_is_said_to_have_none(bundle):
    card = render_card(replace(bundle, num_layers=0))
    assert "no layers, static vectors of 32 values, 2 outputs, in float32" in card


@pytest.mark.parametrize("task", TASKS)
def test_each_task_has_its_words(task):
    assert task in OUTPUTS and task in PIPELINE_TAGS


def test_a_card_is_its_own_under_another_name_until_it_is_edited(bundle):
    assert card_of(bundle) == render_card(bundle)
    assert has_own_card(replace(bundle))
    renamed = replace(bundle, path=bundle.path.parent / "elsewhere")
    assert has_own_card(renamed)
    assert not has_own_card(replace(bundle, labels=("a", "b")))


def test_the_card_of_the_demo_is_true():
    assert has_own_card(open_bundle(DEMO_BUNDLE)), "write it again: render_card"


def test_an_origin_of_several_parts_is_in_words(bundle):
    provenance = {
        "float_projections": ["a", "b"],
        "transfer_curve": [{"texts": 0, "quality": 0.88761}, {"texts": 15000, "quality": 0.9}],
    }
    rows = rows_of(render_card(replace(bundle, provenance=provenance)), "Origin")
    assert rows == [
        ["float_projections", "`a, b`"],
        ["transfer_curve", "`texts 0 quality 0.8876; texts 15000 quality 0.9`"],
    ]


def test_the_rows_that_chose_are_named_beside_those_that_judged(bundle):
    origin = {"select": "train.csv", "select_rows": 1600, "chosen_on_select": ["the recipe"]}
    card = render_card(replace(bundle, provenance={"eval": "eval.csv", **origin}))
    assert (
        "on `eval.csv`, whose rows chose nothing: the recipe was chosen on 1,600 rows of "
        "`train.csv` that trained nothing."
    ) in card
    assert "chose nothing" not in render_card(bundle)
