"""A tiny bundle, made from random weights in a second: no network, no training, no torch."""

import csv
import gzip
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet
import pytest
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import models, normalizers, pre_tokenizers, processors

from fastformers.export.encoder import EncoderWeights, Head, Layer, Linear, Norm
from fastformers.export.graph import write_graph
from fastformers.inference.bundle import Bundle, StageQuality, write_bundle
from fastformers.inference.cost_profile import CostProfile
from fastformers.inference.cpu import read_cpu_model
from fastformers.inference.tasks import TaskName

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

WORDS = [
    *("the", "a", "of", "to", "and", "in", "is", "it", "on", "cat", "dog"),
    *("sat", "mat", "ran", "fast", "slow", "good", "bad", "film", "text"),
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SHARED_DATA = Path(__file__).parent.parent.parent / "shared" / "data"


def make_tokenizer_json() -> str:
    """A WordPiece tokenizer of 20 words, the letters and the digits."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?"
    pieces = [*SPECIAL, *WORDS, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = HfTokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return tokenizer.to_str()


def make_encoder(
    *,
    vocabulary: int = 128,
    width: int = 32,
    num_layers: int = 2,
    num_heads: int = 2,
    classes: int = 2,
    max_length: int = 64,
) -> EncoderWeights:
    """A classifier of random weights, the same ones each time."""
    rng = np.random.default_rng(0)

    def floats(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.3).astype(np.float32)

    def linear(inputs: int, outputs: int) -> Linear:
        return Linear(weight=floats(inputs, outputs), bias=floats(outputs))

    def norm() -> Norm:
        return Norm(weight=1 + floats(width), bias=floats(width), epsilon=1e-12)

    return EncoderWeights(
        max_length=max_length,
        token_embeddings_VE=floats(vocabulary, width),
        position_embeddings_PE=floats(max_length, width),
        token_types_KE=floats(2, width),
        embedding_norm=norm(),
        projection=None,
        activation="gelu",
        layers=tuple(
            Layer(
                num_heads=num_heads,
                query=linear(width, width),
                key=linear(width, width),
                value=linear(width, width),
                output=linear(width, width),
                attention_norm=norm(),
                up=linear(width, 2 * width),
                down=linear(2 * width, width),
                ffn_norm=norm(),
            )
            for _ in range(num_layers)
        ),
        head=Head(hidden=linear(width, width), activation="tanh", output=linear(width, classes)),
    )


def make_bundle(
    path: Path,
    *,
    task: TaskName = "text-classification",
    text_pairs: bool = False,
    labels: tuple[str, ...] = ("no", "yes"),
    num_outputs: int | None = None,
    **shape: int,
) -> Bundle:
    """Write a bundle of random weights; `vocabulary` below 128 leaves words without embedding."""
    model = path.parent / f"{path.name}.graph" / "model.onnx"
    model.parent.mkdir()
    num_outputs = num_outputs or len(labels)
    encoder = make_encoder(classes=num_outputs, **shape)
    write_graph(encoder, model, text_pairs=text_pairs)
    bundle = Bundle(
        path=path,
        task=task,
        labels=labels,
        num_outputs=num_outputs,
        max_length=encoder.max_length,
        text_pairs=text_pairs,
        input_names=("input_ids", "token_type_ids") if text_pairs else ("input_ids",),
        precision="float32",
        stages=(
            StageQuality(
                stage="teacher", quality=0.5, agreement=1.0, num_rows=2, model_bytes=1, seconds=0.0
            ),
        ),
        provenance={"teacher": "random"},
        cost_profile=CostProfile(
            engine=f"onnxruntime {onnxruntime.__version__}",  # measured here: no run has to
            cpu_model=read_cpu_model(),
            max_batch_tokens=256,
            lengths=(2, 64),
            seconds_per_row=(1e-4, 1e-3),
        ),
        files={},
    )
    return write_bundle(bundle, model=model, tokenizer_json=make_tokenizer_json())


@pytest.fixture(scope="session")
def bundle_factory() -> Callable[..., Bundle]:
    """`make_bundle`, for bundles of another shape."""
    return make_bundle


@pytest.fixture(scope="session")
def encoder_factory() -> Callable[..., EncoderWeights]:
    """`make_encoder`."""
    return make_encoder


@pytest.fixture(scope="session")
def tokenizer_json() -> str:
    """The tokenizer of the tiny bundles."""
    return make_tokenizer_json()


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Scores single texts."""
    return make_bundle(tmp_path_factory.mktemp("bundle") / "single")


@pytest.fixture(scope="session")
def pair_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Scores pairs of texts."""
    return make_bundle(tmp_path_factory.mktemp("bundle") / "pair", text_pairs=True)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data sets beside the checkout; tests that need them skip without."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data sets at {SHARED_DATA}")
    return SHARED_DATA


def write_rows(path, rows, *, row_group_size=3):
    """Write dictionaries to a file in the format that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        table = pa.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table, path, row_group_size=row_group_size)
        return path
    if name.endswith(".csv"):
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        content = text.getvalue().encode()
    else:
        content = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.fixture(scope="session", name="write_rows")
def write_rows_fixture():
    """`write_rows`."""
    return write_rows
