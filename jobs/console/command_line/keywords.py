"""The keywords of the commands that are functions, typed: names and values of their flags.

    flags of a parser = [keywords] -> type checkers and editors of those who call from Python

Meanings and defaults stand at the flags; a test holds both lists against each other. This module is
types alone.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from fastformers.cluster.storage.options import StorageOptions
from fastformers.compression.recipe_config import Budget, Precision
from fastformers.inference.bundle import Bundle
from fastformers.models.variants.token_reduction import PoolHow

PathLike = str | os.PathLike[str]
Names = str | Sequence[str]


class TextFileKeywords(TypedDict, total=False):
    """How text files are written, and how much is shown."""

    encoding: str | None
    csv_delimiter: str | None
    csv_quote: str
    csv_escape: str | None
    max_row_bytes: int
    quiet: bool


class CorpusKeywords(TextFileKeywords, total=False):
    """How a corpus is read."""

    text_column: str
    text_pair_column: str | None
    skip_unreadable_files: bool
    max_bad_rows: str
    binary_text: bool
    storage_options: StorageOptions | Mapping[str, Any]


class ScoreKeywords(CorpusKeywords, total=False):
    """Keywords of `score`."""

    keep_columns: Names
    limit: int | None
    shard_seconds: float | None
    columns: Names
    label_column: str | None
    audit: float | None
    audit_bundle: Bundle | PathLike | None
    audit_min_agreement: float | None
    cores_per_actor: int | Literal["auto"] | None
    engine: str
    device: Literal["cpu", "cuda", "mixed"]
    precision: Literal["int8", "int8-dynamic", "float16", "float32"] | None
    actors_per_gpu: int
    num_actors: int | None
    num_nodes: int | None
    oversubscribe: bool
    address: str | None
    timeout_s: float | None
    usd_per_hour: float | None
    instance_type: str | None
    max_batch_tokens: int | None
    on_bad_row: Literal["dead-letter", "fail"]
    energy: str | None
    quote: PathLike | None


class CostKeywords(CorpusKeywords, total=False):
    """Keywords of `estimate_cost`."""

    sample: float | None
    seed: int
    rows: int | None
    audit: float | None
    audit_bundle: Bundle | PathLike | None
    prices: PathLike | None
    discount: float
    spot: bool
    reserved: bool
    profile: PathLike | Sequence[PathLike]
    calibrate: bool
    fit_run: PathLike | None
    profile_out: PathLike | None
    instance_type: str | None
    deadline: str | float | None
    budget: float | None
    confidence: float
    max_instances: int
    startup_s: float
    interruptions_per_hour: float
    write_cluster: PathLike | None


class CompressKeywords(TextFileKeywords, total=False):
    """Keywords of `compress`."""

    work: PathLike | None
    transfer: PathLike | None
    transfer_rows: int | None
    transfer_text_column: str | None
    transfer_text_pair_column: str | None
    transfer_seed: int
    transfer_curve: bool
    storage_options: StorageOptions | Mapping[str, Any]
    max_length: int | None
    eval_limit: int | None
    max_accuracy_drop: float | None
    search: bool
    max_hours: float | None
    plot: PathLike | None
    usd_per_hour: float | None
    instance_type: str | None
    text_column: str
    text_pair_column: str | None
    choice_columns: Names
    label_column: str | None
    label_names: Names
    superglue: str | None
    label_map: PathLike | None
    select_share: float
    select: PathLike | None
    student: PathLike | None
    student_layers: int | None
    student_width: int | None
    keep_gelu: bool
    pool_tokens: int | None
    pool_how: PoolHow
    pool_before_layer: int
    epochs: float
    learning_rate: float | None
    batch_rows: int | None
    seed: int
    temperature: float
    hard_weight: float
    hidden_weight: float
    attention_weight: float
    prune_heads: float
    prune_ffn: float
    prune_budget: Budget
    prune_multiple_of: int
    prune_rounds: int
    prune_epochs: float
    prune_without_labels: bool
    keep_tokens: Names | float | Sequence[float]
    token_epochs: float
    token_soft_start: float
    min_token_agreement: float
    precision: Precision
    min_int8_agreement: float
    trim_vocabulary: int | None
    cascade: bool
    cascade_with: PathLike | None
    cascade_drop: float
