"""What `fastformers bench` measures: a bundle, the weights it was made from, and rows.

    --bundle and --teacher, or --shape -> [subject] -> engines, operators, whole jobs

The bundle is opened, or made up with random weights of the paper's shapes. PyTorch is imported only
where a checkpoint is given. This module measures nothing.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet

from fastformers.benchmark.encoder_shapes import SHAPES_BY_NAME, ShapeName
from fastformers.benchmark.timing import SHAPES
from fastformers.errors import InputError
from fastformers.inference.bundle import Bundle, open_bundle
from fastformers.inference.tasks import EMBEDDING
from fastformers.inference.tokenizer import TokenizedRows, Tokenizer
from jobs.benchmarks.job_baselines import TEXT_COLUMN

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from fastformers.benchmark.baselines import BaselineModels


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is measured.

    Attributes:
        bundle: Our bundle.
        baselines: The same weights as the others run them; None without a checkpoint.
        checkpoint: A Hugging Face directory of those weights; None without.
        rows: A sample of the corpus; None without a corpus.
    """

    bundle: Bundle
    baselines: "BaselineModels | None"
    checkpoint: Path | None
    rows: TokenizedRows | None


def open_subject(
    *,
    bundle_path: Path | None,
    teacher: Path | None,
    shape: ShapeName | None,
    files: list[str],
    sample_rows: int,
    scratch: Path,
) -> Subject:
    """Open a bundle and its teacher, or make both up.

    Args:
        bundle_path: The bundle; None where `shape` is given.
        teacher: Hugging Face directory of the weights, or for `shape` of the tokenizer alone.
        shape: Name of one of the paper's shapes.
        files: Parquet files of texts; empty to do without real rows.
        sample_rows: How many of the texts at most, evenly spaced.
        scratch: Directory for what is made.

    Raises:
        InputError: The checkpoint has no tokenizer or not the bundle's, or the bundle reads pairs
            or too few tokens, or is of no classifier.
    """
    if shape is None:
        assert bundle_path is not None
        bundle = _open_bundle(bundle_path)
        tokenizer = bundle.load_tokenizer()
    else:
        assert teacher is not None
        tokenizer = _read_tokenizer(teacher)
    rows = _sample_rows(files, tokenizer, sample_rows) if files else None
    if teacher is None:
        return Subject(bundle=bundle, baselines=None, checkpoint=None, rows=rows)
    from fastformers.benchmark.baselines import write_baseline_models
    from fastformers.benchmark.random_models import (
        make_random_bundle,
        make_random_model,
        random_rows,
    )

    lengths_N = np.random.default_rng(0).integers(4, 129, 128)
    calibration = rows or random_rows(lengths_N, vocab_size=tokenizer.vocab_size)
    checkpoint = teacher
    if shape is None:
        model = _load_checkpoint(teacher, bundle, tokenizer)
    else:
        encoder_shape = replace(SHAPES_BY_NAME[shape], vocab_size=tokenizer.vocab_size)
        model = make_random_model(encoder_shape)
        checkpoint = _save_checkpoint(model, teacher, scratch / "checkpoint")
        bundle = make_random_bundle(
            model,
            tokenizer_json=(teacher / "tokenizer.json").read_text(encoding="utf-8"),
            rows=calibration,
            path=scratch / "bundle",
        )
    return Subject(
        bundle=bundle,
        baselines=write_baseline_models(model, calibration, scratch),
        checkpoint=checkpoint,
        rows=rows,
    )


def _open_bundle(path: Path) -> Bundle:
    bundle = open_bundle(path)
    if bundle.text_pairs:
        raise InputError(f"{path}: scores text pairs; bench compares single texts only")
    longest = max(length for _, length in SHAPES)
    if bundle.max_length < longest:
        raise InputError(f"{path}: reads {bundle.max_length} tokens; bench measures {longest}")
    return bundle


def _load_checkpoint(path: Path, bundle: Bundle, tokenizer: Tokenizer) -> "PreTrainedModel":
    """The weights that a bundle was made from."""
    from fastformers.models.loading import load_model

    if bundle.task == EMBEDDING:
        raise InputError(f"--teacher {path}: bench compares classifiers, not embeddings")
    model = load_model(path)
    if _read_tokenizer(path).vocab_size != tokenizer.vocab_size:
        raise InputError(
            f"--teacher {path}: its vocabulary is not the bundle's; give the checkpoint "
            "that the bundle was made from, and a bundle with its whole vocabulary"
        )
    return model


def _save_checkpoint(model: "PreTrainedModel", tokenizer: Path, path: Path) -> Path:
    from transformers import AutoTokenizer

    model.save_pretrained(path)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(path)
    return path


def _sample_rows(files: list[str], tokenizer: Tokenizer, num_rows: int) -> TokenizedRows:
    tables = [pyarrow.parquet.read_table(file, columns=[TEXT_COLUMN]) for file in files]
    texts = [text for table in tables for text in table[TEXT_COLUMN].to_pylist()]
    return tokenizer.encode(texts[:: -(-len(texts) // num_rows)])


def _read_tokenizer(teacher: Path) -> Tokenizer:
    path = teacher / "tokenizer.json"
    if not path.is_file():
        raise InputError(f"--teacher {teacher}: has no tokenizer.json")
    return Tokenizer(path.read_text(encoding="utf-8"), max_length=512)
