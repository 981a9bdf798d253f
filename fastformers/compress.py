"""Compress a teacher into a bundle: the offline half from end to end.

teacher + labelled texts -> recipe -> model, proof, cost profile -> [compress] -> bundle
"""

import importlib.metadata
import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transformers import AutoTokenizer

from fastformers.bundle import Bundle, StageQuality, check_output, write_bundle
from fastformers.cost_profile import measure_cost_profile
from fastformers.engine import OnnxEngine
from fastformers.errors import InputError
from fastformers.examples import Examples, load_examples
from fastformers.export import class_names, load_teacher, max_positions
from fastformers.quantize import MIN_AGREEMENT
from fastformers.recipe import (
    Draft,
    Stage,
    export_stage,
    float16_stage,
    quantize_stage,
    run_recipe,
    trim_vocabulary_stage,
)


@dataclass(frozen=True, kw_only=True)
class CompressConfig:
    """What to compress, on which data, how far.

    Attributes:
        teacher: Directory of a fine-tuned Hugging Face sequence classifier.
        train: Labelled file; calibration rows come from it.
        eval: Labelled file for the quality gate, not used for anything else.
        output: Directory of the bundle.
        text_column, text_pair_column, label_column: Columns of both files.
        max_length: Tokens to truncate to; None for the teacher tokenizer's own limit.
        precision: "int8"; "int8-dynamic", whose scores depend on the batch; "float16" for GPUs;
            or "float32" for the tuned graph alone.
        min_int8_agreement: Percent of calibration rows that must keep the float model's label;
            what int8 would spoil stays in float until they do.
        trim_vocabulary: Words to keep in the vocabulary; None for all.
        max_accuracy_drop: Points of accuracy that may be lost.
        eval_limit: Evaluation rows to use, evenly spaced; None for all.
    """

    teacher: Path
    train: Path
    eval: Path
    output: Path
    text_column: str = "text"
    text_pair_column: str | None = None
    label_column: str = "label"
    max_length: int | None = None
    precision: Literal["int8", "int8-dynamic", "float16", "float32"] = "int8"
    min_int8_agreement: float = 100 * MIN_AGREEMENT
    trim_vocabulary: int | None = None
    max_accuracy_drop: float = 1.0
    eval_limit: int | None = None

    def __post_init__(self) -> None:
        if self.max_accuracy_drop < 0:
            raise InputError(f"--max-accuracy-drop {self.max_accuracy_drop:g}: give 0 or more")
        if not 0 <= self.min_int8_agreement <= 100:
            raise InputError(f"--min-int8-agreement {self.min_int8_agreement:g}: give 0 to 100")
        if self.max_length is not None and self.max_length < 4:
            raise InputError(f"--max-length {self.max_length}: give at least 4")
        if self.eval_limit is not None and self.eval_limit < 1:
            raise InputError(f"--eval-limit {self.eval_limit}: give at least 1")


def compress(
    config: CompressConfig, on_stage: Callable[[StageQuality], None] = lambda quality: None
) -> Bundle:
    """Run the recipe and write the bundle.

    Args:
        config: What to do.
        on_stage: Called with the quality after each stage, as it is measured.

    Raises:
        InputError: A path, column, label or model cannot be used.
        StageError: A stage's pre- or postcondition does not hold.
        QualityError: More accuracy was lost than `max_accuracy_drop`; nothing is written.
    """
    check_output(config.output)
    train, evaluation = (
        load_examples(
            path,
            text_column=config.text_column,
            text_pair_column=config.text_pair_column,
            label_column=config.label_column,
        )
        for path in (config.train, config.eval)
    )
    if config.eval_limit is not None:
        evaluation = evaluation.sample(config.eval_limit)
    with tempfile.TemporaryDirectory(prefix="fastformers-") as scratch:
        teacher = _open_teacher(config, train, Path(scratch))
        draft, qualities = run_recipe(
            teacher,
            _stages(config),
            eval_examples=evaluation,
            eval_path=config.eval,
            max_accuracy_drop=config.max_accuracy_drop,
            on_stage=on_stage,
        )
        assert draft.graph is not None
        engine = OnnxEngine(draft.graph)
        bundle = Bundle(
            path=config.output,
            task="text-classification",
            labels=class_names(draft.model.config),
            max_length=draft.max_length,
            text_pairs=draft.text_pairs,
            input_names=engine.input_names,
            precision=draft.precision,
            stages=tuple(qualities),
            provenance={
                **_provenance(config),
                "float_projections": list(draft.float_projections),
            },
            cost_profile=measure_cost_profile(engine, max_length=draft.max_length),
            files={},
        )
        return write_bundle(bundle, model=draft.graph, tokenizer_json=draft.tokenizer_json)


def _open_teacher(config: CompressConfig, train: Examples, scratch: Path) -> Draft:
    model = load_teacher(config.teacher)
    if not (config.teacher / "tokenizer.json").is_file():  # transformers would make one up
        raise InputError(f"{config.teacher}: has no tokenizer.json; save it with a fast tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(config.teacher)
    longest = min(tokenizer.model_max_length, max_positions(model.config), 512)
    return Draft(
        model=model,
        tokenizer_json=tokenizer.backend_tokenizer.to_str(),
        max_length=config.max_length or longest,
        text_pairs=config.text_pair_column is not None,
        train=train,
        scratch=scratch,
    )


def _stages(config: CompressConfig) -> list[Stage]:
    stages = []
    if config.trim_vocabulary is not None:
        stages.append(trim_vocabulary_stage(config.trim_vocabulary))
    stages.append(export_stage())
    if config.precision in ("int8", "int8-dynamic"):
        stages.append(
            quantize_stage(
                dynamic=config.precision == "int8-dynamic",
                min_agreement=config.min_int8_agreement / 100,
            )
        )
    elif config.precision == "float16":
        stages.append(float16_stage())
    return stages


def _provenance(config: CompressConfig) -> dict[str, str]:
    versions = {
        name: importlib.metadata.version(name)
        for name in ("fastformers", "torch", "transformers", "onnx", "onnxruntime")
    }
    return {
        "teacher": config.teacher.name,
        "train": config.train.name,
        "eval": config.eval.name,
        "python": platform.python_version(),
        **versions,
    }
