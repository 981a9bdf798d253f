"""The kept results of a stage are named by the settings that decide them."""

from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

pytest.importorskip("torch", reason="the extra compress is not installed")

from fastformers.compression.recipe_config import (
    DistillConfig,
    PruneConfig,
    RecipeConfig,
    StudentConfig,
    TrimConfig,
)
from fastformers.compression.stages.plan import plan_stages
from fastformers.compression.token_config import TokenConfig
from fastformers.data.examples import Examples
from fastformers.digest import digest_of
from fastformers.models.training_config import TrainingConfig

WHOLE = RecipeConfig(
    trim=TrimConfig(trim_vocabulary=100),
    student=StudentConfig(student_layers=2),
    prune=PruneConfig(prune_heads=0.5),
    tokens=TokenConfig(keep_tokens=(0.5,)),
)
LONGER = replace(DistillConfig.training, epochs=9.0)


def names_of_work(config, transfer=None):
    """Digest of the settings of each stage, by its name."""
    stages = plan_stages(config, transfer)
    return {stage.name: digest_of(dict(stage.settings)) for stage in stages}


def changed(config, transfer=None):
    before, after = names_of_work(WHOLE), names_of_work(config, transfer)
    return {name for name in before | after if before.get(name) != after.get(name)}


@pytest.mark.parametrize(
    ("part", "changes", "stages"),
    [
        ("trim", {"trim_vocabulary": 101}, {"trim_vocabulary"}),
        ("trim", {"trim_vocabulary": None}, {"trim_vocabulary"}),
        ("student", {"student_layers": 1}, {"distill"}),
        ("student", {"student_layers": None, "student": Path("small")}, {"distill"}),
        ("student", {"keep_gelu": True}, {"distill"}),
        ("student", {"pool_tokens": 4}, {"distill"}),
        ("distill", {"temperature": 3.0}, {"distill", "prune", "keep_tokens"}),
        ("distill", {"training": LONGER}, {"distill"}),  # pruning has epochs of its own
        ("prune", {"prune_ffn": 0.5}, {"prune"}),
        ("prune", {"prune_rounds": 2}, {"prune"}),
        ("prune", {"prune_epochs": 0}, {"prune"}),
        ("prune", {"prune_without_labels": True}, {"prune"}),
        ("tokens", {"keep_tokens": (0.5, 0.5)}, {"keep_tokens"}),
        ("tokens", {"keep_tokens": ("auto",)}, {"keep_tokens"}),
        ("tokens", {"token_epochs": 0}, {"keep_tokens"}),
        ("tokens", {"keep_tokens": ()}, {"keep_tokens"}),
        ("quantize", {"precision": "int8-dynamic"}, {"quantize"}),
        ("quantize", {"min_int8_agreement": 98.0}, {"quantize"}),
        ("quantize", {"precision": "float16"}, {"quantize", "float16"}),
    ],
)
def test_a_setting_names_the_work_of_the_stages_that_it_decides(part, changes, stages):
    config = replace(WHOLE, **{part: replace(getattr(WHOLE, part), **changes)})
    assert changed(config) == stages


def with_one_change(config):
    """Functions that make the config with another value of one setting, by the setting's name."""
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            others = [(f"{field.name}.{name}", make) for name, make in with_one_change(value)]
        elif field.name == "student":  # excludes one that is cut from the teacher; tested above
            others = []
        else:
            other = other_than(value, get_type_hints(type(config))[field.name])
            others = [(field.name, lambda other=other: other)]
        for name, make in others:
            yield name, partial(lambda at, make: replace(config, **{at: make()}), field.name, make)


def other_than(value, hint):
    """A valid value of another setting, by its type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return next(choice for choice in get_args(hint) if choice != value)
    if isinstance(value, tuple):
        return (*value, 0.25)
    return 2 if value is None else value / 2 if isinstance(value, float) else value + 1


# Half of 0 is 0: these are 0 or without effect unless they are set.
TURNED_ON = replace(
    WHOLE,
    distill=DistillConfig(attention_weight=1.0, training=LONGER),
    prune=PruneConfig(prune_heads=0.5, prune_ffn=0.5),
    tokens=TokenConfig(),
)
FEWER_TOKENS = replace(
    TURNED_ON,
    student=StudentConfig(student_layers=2, pool_tokens=4),
    distill=DistillConfig(),  # attention is not compared where tokens are missing
    tokens=TokenConfig(keep_tokens=(1.0, 0.5)),
)


@pytest.mark.parametrize(
    ("config", "make_other"),
    [
        pytest.param(config, make_other, id=name)
        for config in (TURNED_ON, FEWER_TOKENS)
        for name, make_other in with_one_change(config)
        if ("token" in name or "pool" in name) == (config is FEWER_TOKENS)
    ],
)
def test_no_setting_is_left_out_of_the_names(config, make_other):
    assert names_of_work(make_other()) != names_of_work(config)


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_the_files_of_a_student_name_the_work_that_starts_from_it(tmp_path, weights):
    def name_of(directory, content):
        directory.mkdir(exist_ok=True)
        (directory / weights).write_bytes(content)
        return names_of_work(replace(WHOLE, student=StudentConfig(student=directory)))["distill"]

    first = name_of(tmp_path / "small", b"1")
    assert name_of(tmp_path / "small", b"2") != first
    assert name_of(tmp_path / "copy", b"1") == first


def test_how_to_recover_does_not_matter_where_pruning_does_not():
    alone = replace(WHOLE, prune=PruneConfig(prune_heads=0.5, prune_epochs=0))
    colder = DistillConfig(training=TrainingConfig(epochs=1, learning_rate=1e-3), temperature=1)
    names = [names_of_work(config)["prune"] for config in (alone, replace(alone, distill=colder))]
    assert names[0] == names[1]


def test_texts_to_transfer_to_name_the_work_that_learns_from_them():
    transfer = Examples(texts=["a cat"], text_pairs=None, labels=[None])
    assert changed(WHOLE, transfer) == {"distill", "prune", "keep_tokens"}
    other = replace(transfer, texts=["a dog"])
    assert names_of_work(WHOLE, transfer) != names_of_work(WHOLE, other)


def test_what_cannot_be_digested_is_not_digested_by_its_address():
    with pytest.raises(TypeError, match="cannot digest a object"):
        digest_of(object())
