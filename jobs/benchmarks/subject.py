"""What `fastformers bench` measures: a bundle, the weights it was made from, and rows.

    --bundle and --teacher, or --shape -> [subject] -> engines, operators, whole jobs

The bundle is opened, or made up with random weights of the paper's shapes. PyTorch is imported only
where a checkpoint is given. This module measures nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastformers.benchmark.encoder_shapes import SHAPES_BY_NAME, ShapeName
from fastformers.benchmark.timing import SHAPES
from fastformers.cluster.delivery.bundle_delivery import pin_bundle
from fastformers.errors import InputError
from fastformers.inference.bundle import Bundle
from fastformers.inference.manifest import TOKENIZER_FILE
from fastformers.inference.tasks import EMBEDDING
from fastformers.inference.tokenizer import TokenizedRows, Tokenizer

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
    bundle_source: str,
    teacher: Path | None,
    *,
    texts: Sequence[str],
    sample_rows: int,
    scratch: Path,
) -> Subject:
    """Open a bundle and the weights that it was made from.

    Args:
        bundle_source: Directory or URI of the bundle.
        teacher: Hugging Face directory of the weights; None to measure our engines alone.
        texts: Texts of the corpus; empty to do without real rows.
        sample_rows: Number of the texts at most, evenly spaced.
        scratch: Directory for what is made.

    Raises:
        InputError: The checkpoint has no tokenizer or not the bundle's, or the bundle reads pairs
            or too few tokens, or is of no classifier.
    """
    bundle = _open_bundle(bundle_source)
    tokenizer = bundle.load_tokenizer()
    rows = encode_sample(texts, tokenizer, sample_rows)
    if teacher is None:
        return Subject(bundle=bundle, baselines=None, checkpoint=None, rows=rows)
    from fastformers.benchmark.baselines import write_baseline_models

    model = _load_checkpoint(teacher, bundle, tokenizer)
    calibration = rows or _made_up_rows(tokenizer)
    return Subject(
        bundle=bundle,
        baselines=write_baseline_models(model, calibration, scratch),
        checkpoint=teacher,
        rows=rows,
    )


def make_subject(
    shape: ShapeName, tokenizer_path: Path, *, texts: Sequence[str], sample_rows: int, scratch: Path
) -> Subject:
    """Make up a bundle and its weights in one of the paper's shapes.

    Args:
        shape: Name of the shape.
        tokenizer_path: Hugging Face directory of the tokenizer.
        texts: Texts of the corpus; empty to do without real rows.
        sample_rows: Number of the texts at most, evenly spaced.
        scratch: Directory for what is made.

    Raises:
        InputError: The directory has no tokenizer.
    """
    tokenizer = read_tokenizer(tokenizer_path)
    rows = encode_sample(texts, tokenizer, sample_rows)
    from fastformers.benchmark.baselines import write_baseline_models
    from fastformers.benchmark.random_models import make_random_bundle, make_random_model

    model = make_random_model(replace(SHAPES_BY_NAME[shape], vocab_size=tokenizer.vocab_size))
    calibration = rows or _made_up_rows(tokenizer)
    bundle = make_random_bundle(
        model,
        tokenizer_json=(tokenizer_path / TOKENIZER_FILE).read_text(encoding="utf-8"),
        rows=calibration,
        path=scratch / "bundle",
    )
    return Subject(
        bundle=bundle,
        baselines=write_baseline_models(model, calibration, scratch),
        checkpoint=_save_checkpoint(model, tokenizer_path, scratch / "checkpoint"),
        rows=rows,
    )


def _open_bundle(source: str) -> Bundle:
    bundle = pin_bundle(source).open()
    if bundle.text_pairs:
        raise InputError(f"{bundle}: scores text pairs; bench compares single texts only")
    longest = max(length for _, length in SHAPES)
    if bundle.max_length < longest:
        raise InputError(f"{bundle}: reads {bundle.max_length} tokens; bench measures {longest}")
    return bundle


def _load_checkpoint(path: Path, bundle: Bundle, tokenizer: Tokenizer) -> "PreTrainedModel":
    """The weights that a bundle was made from."""
    from fastformers.models.loading import load_model

    if bundle.task == EMBEDDING:
        raise InputError(f"--teacher {path}: bench compares classifiers, not embeddings")
    model = load_model(path)
    if read_tokenizer(path).vocab_size != tokenizer.vocab_size:
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


def _made_up_rows(tokenizer: Tokenizer) -> TokenizedRows:
    """Rows to calibrate with where there are no texts."""
    from fastformers.benchmark.random_models import random_rows

    lengths_N = np.random.default_rng(0).integers(4, 129, 128)
    return random_rows(lengths_N, vocab_size=tokenizer.vocab_size)


def encode_sample(
    texts: Sequence[str], tokenizer: Tokenizer, num_rows: int
) -> TokenizedRows | None:
    if not texts:
        return None
    return tokenizer.encode(texts[:: -(-len(texts) // num_rows)])


def read_tokenizer(teacher: Path) -> Tokenizer:
    path = teacher / TOKENIZER_FILE
    if not path.is_file():
        raise InputError(f"--teacher {teacher}: has no tokenizer.json")
    return Tokenizer(path.read_text(encoding="utf-8"), max_length=512)
