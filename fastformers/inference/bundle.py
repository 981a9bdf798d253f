"""The bundle: everything a scoring actor needs, in one directory that can be verified.

    compress -> [bundle] -> prepare, score, cost

    model.onnx       the tuned graph
    model.onnx.data  its weights, which the actors of a host map and share
    float16.onnx     a further graph in another precision, with its .data, for other devices
    tokenizer.json   texts -> token ids
    bundle.json      what the model is, how good it proved to be, what it costs, and the SHA-256 of
                     the other files and of itself
    README.md        the same for people, as the hub's model card; nothing reads it

Older bundles have all weights inside model.onnx: a bundle's files are those that bundle.json lists.
This module alone knows the layout; it knows nothing of the inside of the graph or of corpora.
"""

import json
import shutil
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fastformers.atomic_file import replace_directory, whole_file
from fastformers.digest import digest_file
from fastformers.errors import BundleError, InputError
from fastformers.files.hub import (
    HubPlace,
    fetch_files,
    parse_hub_uri,
    parse_repository,
    push_files,
    without_links,
)
from fastformers.inference.cost_profile import CostProfile
from fastformers.inference.description.further_graph import FurtherGraph
from fastformers.inference.description.model_card import card_of, render_card
from fastformers.inference.description.stage_quality import StageQuality
from fastformers.inference.manifest import (
    CARD_FILE,
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
        multiply_adds_per_token: Weights in the graph's products, each by the share of the tokens
            that it reads: the multiply-adds of a token but for attention. None in older bundles.
        further_graphs: Graphs beside it for other devices; see `choose_graph`.
        num_layers, width: Layers, and width of the states between them; None in older bundles.
        stages: Quality after each stage of the recipe.
        provenance: Origin of teacher and data, and the versions that made the bundle.
        cost_profile: Seconds by length, as measured where it was compressed.
        files: SHA-256 by file name; filled in as the bundle is read or written.
        manifest_digest: Identity of all that `bundle.json` says; filled in like `files`.
        source: Path or URI that the user gave, where `path` is a copy of it; else None.
        model_file: Name of the graph's file; another one once `choose_graph` has chosen.
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
    further_graphs: tuple[FurtherGraph, ...] = ()
    num_layers: int | None = None
    manifest_digest: str = ""
    source: str | None = None
    model_file: str = MODEL_FILE

    def __str__(self) -> str:
        return self.source or str(self.path)

    @classmethod
    def from_pretrained(
        cls, name_or_dir: str | Path, *, revision: str | None = None, token: str | None = None
    ) -> "Bundle":
        """Open a bundle of this disk or of the Hugging Face hub, verified.

        Args:
            name_or_dir: Directory, or org/name or hf://org/name of a repository.
            revision: Branch, tag or commit of the repository; its main branch by default.
            token: Who asks the hub; by default who is logged in (`hf auth login`, HF_TOKEN).

        Raises:
            BundleError: There is no bundle, or it is damaged.
            InputError: The repository is not there or not for this user.
            StorageError: It is not in the hub's cache, and the hub cannot be reached.
        """
        place = parse_hub_uri(str(name_or_dir))
        if place is None and not Path(name_or_dir).exists():
            place = parse_repository(str(name_or_dir))
        if place is None:
            return open_bundle(name_or_dir)
        return _open_from_hub(replace(place, revision=revision or place.revision), token)

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Upload a fastformers bundle",
    ) -> str:
        """Put the bundle and its model card into a repository of the hub, by one commit.

        Args:
            repository: "org/name"; it is made if it is not there.
            private: Whether a new repository is private; None for the owner's default.
            token: Who writes; by default who is logged in (`hf auth login`, HF_TOKEN).
            commit_message: What the commit says.

        Returns:
            URL of the commit.

        Raises:
            InputError: The user may not write there.
            StorageError: The hub cannot be reached.
        """
        files = {name: self.path / name for name in (MANIFEST_FILE, *self.files)}
        return push_files(
            repository,
            {**files, CARD_FILE: card_of(self).encode()},
            message=commit_message,
            private=private,
            token=token,
        )

    @property
    def metric(self) -> str:
        """Name of the metric that the `quality` of its stages is."""
        return self.stages[-1].metric if self.stages else self.task.metric

    @property
    def model_path(self) -> Path:
        """The ONNX file."""
        return self.path / self.model_file

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
            f"{self}: {self.model_file} gives {num_outputs} outputs from {', '.join(input_names)}, "
            f"{MANIFEST_FILE} says {self.num_outputs} from {', '.join(self.input_names)}; make the "
            "bundle again"
        )

    @property
    def digest(self) -> str:
        """Identity of what decides a prediction: graph, tokenizer, length limit, labels and task.

        The cost profile, which decides how a corpus is cut, is in `manifest_digest` alone.
        """
        decisive = (self.model_file, weights_path(self.model_path).name, TOKENIZER_FILE)
        return digest_of(
            {
                "files": {name: self.files[name] for name in decisive if name in self.files},
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


def write_bundle(
    bundle: Bundle, *, model: Path, tokenizer_json: str, further_models: Sequence[Path] = ()
) -> Bundle:
    """Write a bundle directory in one step, replacing an older bundle at the same place.

    Args:
        bundle: Contents of the manifest; `path` is the directory to write, `files` is filled in
            here.
        model: The ONNX file to copy in, named `model.onnx`, as its weights are named after it.
        tokenizer_json: Serialized tokenizer.
        further_models: The files of its further graphs, named as these say, in their order.

    Returns:
        The bundle as written, with its hashes.

    Raises:
        InputError: `path` exists and is not a bundle.
        ValueError: A graph has another name.
    """
    models = [model, *further_models]
    names = [bundle.model_file, *(graph.file for graph in bundle.further_graphs)]
    if [path.name for path in models] != names:
        raise ValueError(f"{models}: write the graphs as {names}; weights are named after them")
    check_output(bundle.path)
    bundle.path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{bundle.path.name}.", dir=bundle.path.parent))
    try:
        staging.chmod(0o755)
        copies = [
            shutil.copyfile(file, staging / file.name)
            for path in models
            for file in (path, weights_path(path))
        ]
        (staging / TOKENIZER_FILE).write_text(tokenizer_json, encoding="utf-8")
        files = [*copies, staging / TOKENIZER_FILE]
        hashes = {file.name: digest_file(file) for file in files}
        written = write_manifest(replace(bundle, files=hashes, source=None), staging)
        (staging / CARD_FILE).write_text(render_card(written), encoding="utf-8")
        replace_directory(staging, bundle.path)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return written


def write_manifest(bundle: Bundle, directory: Path) -> Bundle:
    """Sign what a bundle says and write it into a directory, whole or not at all.

    Returns:
        The bundle with its new `manifest_digest`.
    """
    signed = replace(bundle, manifest_digest=digest_of(_fields_of(bundle)))
    with whole_file(directory / MANIFEST_FILE) as unfinished:
        unfinished.write_text(sign(_fields_of(signed)), encoding="utf-8")
    return signed


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
        path: Directory of the bundle, or hf://org/name of a repository.
        source: Path or URI that errors name, where the directory is a copy of it.

    Raises:
        BundleError: The bundle is missing, incomplete, altered, or of a newer version.
        InputError: The repository is not there or not for this user.
        StorageError: It is not in the hub's cache, and the hub cannot be reached.
    """
    if (place := parse_hub_uri(str(path))) is not None:
        return _open_from_hub(place, None)
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
            found = digest_file(path / name)
        except OSError as error:
            raise BundleError(_unreadable(named, name, error)) from error
        if found != expected:
            raise BundleError(f"{named}: {name} differs from its SHA-256; copy the bundle again")
    return bundle


def _open_from_hub(place: HubPlace, token: str | None) -> Bundle:
    """Open a repository's bundle at one commit, which its `source` names."""
    path = fetch_files(place, MANIFEST_FILE, token=token)
    if not (path / MANIFEST_FILE).is_file():
        raise BundleError(missing_manifest(str(place)))
    commit = replace(place, revision=path.name)
    listed = parse_manifest((path / MANIFEST_FILE).read_bytes(), str(commit)).files
    files = (MANIFEST_FILE, *listed)
    path = without_links(fetch_files(commit, *files, token=token), *files)
    return open_bundle(path, source=str(commit))


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
        num_layers=fields.get("num_layers"),
        width=fields.get("width"),
        stages=tuple(StageQuality(**stage) for stage in fields["stages"]),
        further_graphs=tuple(map(FurtherGraph.from_json, fields.get("further_graphs", ()))),
        provenance=fields["provenance"],
        cost_profile=CostProfile.from_json(fields["cost_profile"]),
        files=fields["files"],
    )


def _fields_of(bundle: Bundle) -> dict[str, Any]:
    """What the manifest says of a bundle, wherever it lies, as plain JSON values."""
    fields = {**asdict(bundle), "task": bundle.task.name}
    for name in ("path", "source", "manifest_digest", "model_file"):
        del fields[name]
    plain: dict[str, Any] = json.loads(json.dumps(fields))
    return plain
