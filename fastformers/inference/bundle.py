"""The bundle: everything a scoring actor needs, in one directory that can be verified.

    compress -> [bundle] -> prepare, score, cost

    model.onnx       the tuned graph
    model.onnx.data  its weights, which the actors of a host map and share
    tokenizer.json   texts -> token ids
    bundle.json      what the model is, how good it proved to be, what it costs, and the SHA-256 of
                     the other files and of itself

Older bundles have all weights inside model.onnx, and open like any other: the files of a bundle are
those that bundle.json lists.

`write_bundle` and `open_bundle` are the only code that knows this layout. They know nothing of
the inside of the graph or of corpora.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fastformers.errors import BundleError, InputError
from fastformers.inference.cost_profile import CostProfile
from fastformers.inference.manifest import (
    MANIFEST_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    digest_of,
    read_fields,
    sign,
)
from fastformers.inference.onnx_files import weights_path
from fastformers.inference.tasks import TASKS, Task
from fastformers.inference.tokenizer import Tokenizer

DEMO_BUNDLE = Path(__file__).parent.parent / "demo_bundle"


@dataclass(frozen=True, kw_only=True)
class StageQuality:
    """Quality of the model after one stage of the recipe, measured on the evaluation file.

    Attributes:
        stage: Name of the stage; the first is the teacher itself.
        quality: Value of the task's metric, at most 1.
        agreement: Agreement with the teacher, at most 1; for labels the share of rows that have the
            teacher's label.
        num_rows: Number of evaluation rows.
        model_bytes: Size of the model after the stage, its weights included.
        seconds: Duration of the stage, evaluation not included.
        metric: Name of the metric of `quality`: "accuracy", "micro-F1", ... (see `tasks`).
        other_metrics: Further metrics, by name.
    """

    stage: str
    quality: float
    agreement: float
    num_rows: int
    model_bytes: int
    seconds: float
    metric: str = "accuracy"
    other_metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """An opened bundle: its directory and what `bundle.json` says.

    Attributes:
        path: The directory.
        task: Task of the model, which says what its outputs mean; see `tasks`.
        labels: Class names by class index; none for scores and embeddings.
        num_outputs: Number of outputs of the graph for a row.
        max_length: Tokens a row is truncated to, special tokens included.
        text_pairs: Whether a row is two texts.
        input_names: Inputs of the graph.
        precision: "int8", "int8-dynamic", "float16" or "float32".
        multiply_adds_per_token: Number of weights in the graph's matrix products, which is about
            the number of multiply-adds that a token costs; the products of attention, which
            depend on length, are not counted. None in older bundles; only the cost on a GPU
            needs it.
        width: Width of the hidden states between two layers; None in older bundles.
        stages: Quality after each stage of the recipe.
        provenance: Origin of teacher and data, and the versions that made the bundle.
        cost_profile: Seconds by length, as measured where it was compressed.
        files: SHA-256 by file name; filled in when the bundle is written.
        manifest_digest: Identity of everything that `bundle.json` says; filled in when the bundle
            is written or opened.
        source: Path or URI that the user gave, where `path` is a copy of it; else None.
    """

    path: Path
    task: Task
    labels: tuple[str, ...]
    num_outputs: int
    max_length: int
    text_pairs: bool
    input_names: tuple[str, ...]
    precision: str
    multiply_adds_per_token: int | None
    width: int | None
    stages: tuple[StageQuality, ...]
    provenance: dict[str, Any]
    cost_profile: CostProfile
    files: dict[str, str]
    manifest_digest: str = ""
    source: str | None = None

    def __str__(self) -> str:
        return self.source or str(self.path)

    @property
    def metric(self) -> str:
        """Name of the metric that the `quality` of its stages is."""
        return self.stages[-1].metric if self.stages else self.task.metric

    @property
    def model_path(self) -> Path:
        """The ONNX file."""
        return self.path / MODEL_FILE

    def load_tokenizer(self) -> Tokenizer:
        """The tokenizer, truncating as the model was trained to.

        Raises:
            BundleError: Its file cannot be read, or holds no tokenizer.
        """
        path = self.path / TOKENIZER_FILE
        try:
            return Tokenizer(path.read_text(encoding="utf-8"), max_length=self.max_length)
        except OSError as error:
            raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error
        except Exception as error:  # what the tokenizers library raises has no other base
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BundleError(
                f"{self}: {TOKENIZER_FILE} is no tokenizer ({reason}); make the bundle again"
            ) from error

    def check_graph(self, input_names: Collection[str], num_outputs: int) -> None:
        """Refuse a graph that is not the one that the manifest speaks of.

        Args:
            input_names: Inputs of the graph.
            num_outputs: Number of its outputs for a row.

        Raises:
            BundleError: The manifest names other inputs, or another number of outputs.
        """
        if set(input_names) == set(self.input_names) and num_outputs == self.num_outputs:
            return
        raise BundleError(
            f"{self}: {MODEL_FILE} gives {num_outputs} outputs from {', '.join(input_names)}, "
            f"{MANIFEST_FILE} says {self.num_outputs} from {', '.join(self.input_names)}; make the "
            "bundle again"
        )

    @property
    def digest(self) -> str:
        """Identity of what decides a prediction: files, length limit, labels and task.

        Bundles that share it may differ in their cost profile, which decides how a corpus is cut
        into shards; `manifest_digest` is the identity of all of it.
        """
        return digest_of(
            {
                "files": self.files,
                "max_length": self.max_length,
                "labels": self.labels,
                "task": self.task.name,
            }
        )

    @property
    def preparation_digest(self) -> str:
        """Identity of what decides token ids; bundles that share it share prepared shards."""
        return digest_of(
            {
                "tokenizer": self.files[TOKENIZER_FILE],
                "max_length": self.max_length,
                "text_pairs": self.text_pairs,
                "token_types": "token_type_ids" in self.input_names,
            }
        )


def write_bundle(bundle: Bundle, *, model: Path, tokenizer_json: str) -> Bundle:
    """Write a bundle directory in one step, replacing an older bundle at the same place.

    Args:
        bundle: Contents of the manifest; `path` is the directory to write, `files` is filled in
            here.
        model: The ONNX file to copy in, with its weights; its name must be `model.onnx`, because it
            refers to its weights by file name.
        tokenizer_json: Serialized tokenizer.

    Returns:
        The bundle as written, with its hashes.

    Raises:
        InputError: `path` exists and is not a bundle.
        ValueError: `model` has another name.
    """
    if model.name != MODEL_FILE:
        raise ValueError(
            f"{model}: write the graph as {MODEL_FILE}; its weights are named after it"
        )
    check_output(bundle.path)
    bundle.path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{bundle.path.name}.", dir=bundle.path.parent))
    try:
        staging.chmod(0o755)
        copies = [
            shutil.copyfile(file, staging / file.name) for file in (model, weights_path(model))
        ]
        (staging / TOKENIZER_FILE).write_text(tokenizer_json, encoding="utf-8")
        files = [*copies, staging / TOKENIZER_FILE]
        hashes = {file.name: _sha256(file) for file in files}
        written = replace(bundle, files=hashes, source=None)
        written = replace(written, manifest_digest=digest_of(_fields_of(written)))
        (staging / MANIFEST_FILE).write_text(sign(_fields_of(written)), encoding="utf-8")
        _put_in_place(staging, bundle.path)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return written


def _put_in_place(staging: Path, path: Path) -> None:
    """Rename a finished directory; an older one moves aside first, and back if the rename fails."""
    if not path.exists():
        os.replace(staging, path)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    os.replace(path, aside)
    try:
        os.replace(staging, path)
    except BaseException:
        os.replace(aside, path)
        raise
    shutil.rmtree(aside)


def check_output(path: Path) -> None:
    """Refuse to write a bundle over anything but an older bundle.

    Raises:
        InputError: `path` exists, is not empty, and holds no bundle.
    """
    if path.is_dir() and (not any(path.iterdir()) or (path / MANIFEST_FILE).is_file()):
        return
    if path.exists():
        raise InputError(f"--output {path}: exists and is not a bundle; choose another directory")


def open_bundle(path: str | Path, *, source: str | None = None) -> Bundle:
    """Open a bundle and verify every byte of it.

    Args:
        path: Directory of the bundle.
        source: Path or URI that errors name, where the directory is a copy of it.

    Raises:
        BundleError: The bundle is missing, incomplete, altered, or of a newer version.
    """
    path = Path(path)
    named = source or str(path)
    try:
        manifest = (path / MANIFEST_FILE).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(missing_manifest(named)) from error
    except OSError as error:
        raise BundleError(_unreadable(named, MANIFEST_FILE, error)) from error
    bundle = replace(parse_manifest(manifest, named), path=path, source=source)
    for name, expected in bundle.files.items():
        if not (path / name).is_file():
            raise BundleError(f"{named}: {name} is missing; copy the bundle again")
        try:
            found = _sha256(path / name)
        except OSError as error:
            raise BundleError(_unreadable(named, name, error)) from error
        if found != expected:
            raise BundleError(f"{named}: {name} differs from its SHA-256; copy the bundle again")
    return bundle


def _unreadable(named: str, name: str, error: OSError) -> str:
    return f"{named}: {name} cannot be read: {error.strerror or error}"


def missing_manifest(named: str) -> str:
    """What to say of a place that holds no bundle."""
    return f"{named}: not a bundle (no {MANIFEST_FILE}); make one with compress"


def parse_manifest(content: bytes, named: str) -> Bundle:
    """Read and check a manifest alone, before its files are at hand.

    Args:
        content: Bytes of `bundle.json`.
        named: Path or URI of the bundle, which becomes its `path` and is named in errors.

    Raises:
        BundleError: The manifest is damaged, altered, or of a newer version.
    """
    fields, digest = read_fields(content, named)
    return replace(_from_fields(Path(named), fields), manifest_digest=digest)


def _from_fields(path: Path, fields: dict[str, Any]) -> Bundle:
    profile = fields["cost_profile"]
    return Bundle(
        path=path,
        task=TASKS[fields["task"]],
        labels=tuple(fields["labels"]),
        num_outputs=fields["num_outputs"],
        max_length=fields["max_length"],
        text_pairs=fields["text_pairs"],
        input_names=tuple(fields["input_names"]),
        precision=fields["precision"],
        multiply_adds_per_token=fields.get("multiply_adds_per_token"),
        width=fields.get("width"),
        stages=tuple(StageQuality(**stage) for stage in fields["stages"]),
        provenance=fields["provenance"],
        cost_profile=CostProfile(
            engine=profile["engine"],
            cpu_model=profile["cpu_model"],
            max_batch_tokens=profile["max_batch_tokens"],
            lengths=tuple(profile["lengths"]),
            seconds_per_row=tuple(profile["seconds_per_row"]),
            cpu_generation=profile.get("cpu_generation"),
            cpu_features=tuple(profile.get("cpu_features", ())),
            seconds_alone=tuple(profile.get("seconds_alone", ())),
            waiting_share=profile.get("waiting_share", 0.0),
        ),
        files=fields["files"],
    )


def _fields_of(bundle: Bundle) -> dict[str, Any]:
    """What the manifest says of a bundle, wherever it lies, as plain JSON values."""
    fields = {**asdict(bundle), "task": bundle.task.name}
    for name in ("path", "source", "manifest_digest"):
        del fields[name]
    plain: dict[str, Any] = json.loads(json.dumps(fields))
    return plain


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
