"""What bundle.json may say: the type and range of each field, and what must fit together.

    bytes of bundle.json -> [manifest] -> fields that can be trusted -> bundle

A manifest is signed by a digest over all of its fields, so a byte that changed is found; what is
checked here beyond that is whether whoever signed it wrote a manifest at all. Fields that a later
version added are passed over. This module knows nothing of files, and nothing of what fields mean
to scoring but their numbers.
"""

import hashlib
import itertools
import json
import math
from functools import cache
from typing import TYPE_CHECKING, Any

from fastformers.errors import BundleError
from fastformers.inference.tasks import TASKS
from fastformers.installation import how_to_upgrade

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

# Version 2 may list further graphs, version 3 a cascade; what has neither is written as version 1,
# which all can read.
FORMAT_VERSION = 3
MODEL_FILE = "model.onnx"
WEIGHTS_FILE = "model.onnx.data"  # older bundles have none
FLOAT16_FILE = "float16.onnx"
SECOND_FILE = "second.onnx"  # of a cascade
TOKENIZER_FILE = "tokenizer.json"
MANIFEST_FILE = "bundle.json"
CARD_FILE = "README.md"  # for people: it may be edited, and no digest covers it

# What a row's score does not depend on the rows beside it in, and what CPUs compute.
CASCADE_PRECISIONS = ("int8", "float32")

_SHOWN_CHARACTERS = 160
_TEXT = {"type": "string", "minLength": 1}
_COUNT = {"type": "integer", "minimum": 1, "maximum": 2**40}
_SIZE = {"type": "integer", "minimum": 0, "maximum": 2**50}
_LENGTH = {"type": "integer", "minimum": 1, "maximum": 2**24}
_SECONDS = {"type": "number", "exclusiveMinimum": 0, "maximum": 1e6}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_QUALITY = {"type": "quality", "maximum": 1}
_SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}


def _list_of(items: dict[str, Any], **limits: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **limits}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [{"type": "null"}, schema]}


def _record(optional: dict[str, Any], **required: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


_STAGE = {
    **_record(
        {"metric": _TEXT, "other_metrics": {"type": "object", "additionalProperties": _QUALITY}},
        stage=_TEXT,
        quality=_QUALITY,
        agreement=_QUALITY,
        num_rows=_SIZE,
        model_bytes=_SIZE,
        seconds={"type": "number", "minimum": 0},
    ),
    "additionalProperties": False,
}
_COST_PROFILE = _record(
    {
        "cpu_generation": _or_null(_TEXT),
        "cpu_features": _list_of(_TEXT),
        "seconds_alone": _list_of(_SECONDS),
        "waiting_share": _SHARE,
    },
    engine=_TEXT,
    cpu_model=_TEXT,
    max_batch_tokens=_LENGTH,
    lengths=_list_of(_LENGTH, minItems=1),
    seconds_per_row=_list_of(_SECONDS, minItems=1),
)
_FILES = {
    "type": "object",
    "properties": dict.fromkeys(
        (
            *(MODEL_FILE, WEIGHTS_FILE, FLOAT16_FILE, f"{FLOAT16_FILE}.data"),
            *(SECOND_FILE, f"{SECOND_FILE}.data", TOKENIZER_FILE),
        ),
        _SHA256,
    ),
    "required": [MODEL_FILE, TOKENIZER_FILE],
    "additionalProperties": False,
}
_FURTHER_GRAPH = _record(
    {},
    precision={"const": "float16"},
    file={"const": FLOAT16_FILE},
    quality=_or_null(_STAGE),
)
_INPUT_NAMES = {"enum": [["input_ids"], ["input_ids", "token_type_ids"]]}
_CASCADE = _record(
    {
        "eval_share": _or_null(_SHARE),
        "input_names": _or_null(_INPUT_NAMES),
        "multiply_adds_per_token": _or_null(_COUNT),
        "num_layers": _or_null(_COUNT),
        "width": _or_null(_COUNT),
    },
    precision={"enum": list(CASCADE_PRECISIONS)},
    file={"const": SECOND_FILE},
    threshold={"type": "number", "minimum": -1e6, "maximum": 1e6},
    share=_SHARE,
    share_by_length=_record(
        {},
        lengths=_list_of({"type": "number", "exclusiveMinimum": 0, "maximum": 2**24}, minItems=1),
        shares=_list_of(_SHARE, minItems=1),
    ),
    num_held_out=_COUNT,
    max_drop={"type": "number", "minimum": 0, "maximum": 100},
    first_profile=_COST_PROFILE,
    second_profile=_COST_PROFILE,
    second_quality=_or_null(_STAGE),
    quality=_or_null(_STAGE),
)
_SCHEMA = _record(
    {
        "cascade": _CASCADE,
        "further_graphs": _list_of(_FURTHER_GRAPH, maxItems=1),
        "multiply_adds_per_token": _or_null(_COUNT),
        "num_layers": _or_null(_SIZE),
        "width": _or_null(_COUNT),
    },
    task={"type": "string"},
    labels=_list_of({"type": "string"}, uniqueItems=True),
    num_outputs=_LENGTH,
    max_length=_LENGTH,
    text_pairs={"type": "boolean"},
    input_names=_INPUT_NAMES,
    precision={"enum": ["int8", "int8-dynamic", "float16", "float32"]},
    stages=_list_of(_STAGE),
    provenance={"type": "object"},
    cost_profile=_COST_PROFILE,
    files=_FILES,
)


def missing_manifest(named: str) -> str:
    """What to say of a place that holds no bundle."""
    return f"{named}: not a bundle (no {MANIFEST_FILE}); make one with compress"


def digest_of(fields: dict[str, Any]) -> str:
    """Identity of plain values."""
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def sign(fields: dict[str, Any]) -> str:
    """Text of a manifest with these fields."""
    version = 3 if "cascade" in fields else 2 if fields.get("further_graphs") else 1
    signed = {"format_version": version, **fields, "digest": digest_of(fields)}
    return json.dumps(signed, indent=2) + "\n"


def read_fields(content: bytes, named: str) -> tuple[dict[str, Any], str]:
    """Fields of a manifest and their digest, checked.

    Args:
        content: Bytes of `bundle.json`.
        named: Path or URI of the bundle, for messages.

    Raises:
        BundleError: The manifest is damaged, altered, of a newer version, or not that of a bundle;
            names the field.
    """
    manifest = f"{named}/{MANIFEST_FILE}"
    try:
        fields: dict[str, Any] = json.loads(content.decode("utf-8"))
        version, digest = fields.pop("format_version"), fields.pop("digest")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise BundleError(f"{manifest}: damaged; copy the bundle again") from error
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise BundleError(
            f"{named}: bundle format {version!r:.40}, this fastformers reads up to "
            f"{FORMAT_VERSION}; {how_to_upgrade()}"
        )
    if digest_of(fields) != digest:
        raise BundleError(f"{manifest}: altered after it was written; copy the bundle again")
    problem = _find_problem(fields)
    if problem is not None:
        raise BundleError(f"{manifest}: {problem}; make the bundle again")
    if fields["task"] not in TASKS:
        raise BundleError(
            f"{named}: its task {fields['task']!r:.40} is not one of {', '.join(TASKS)}; "
            f"{how_to_upgrade()}"
        )
    misfit = _find_misfit(fields)
    if misfit is not None:
        raise BundleError(f"{manifest}: {misfit}; make the bundle again")
    return fields, str(digest)


def _find_problem(fields: dict[str, Any]) -> str | None:
    """The field that has a wrong type or a value out of range, and why; None if all are right."""
    from jsonschema.exceptions import best_match

    error = best_match(_validator().iter_errors(fields))
    if error is None:
        return None
    place = str(error.json_path).removeprefix("$").removeprefix(".")
    message = " ".join(str(error.message).split())
    if len(message) > _SHOWN_CHARACTERS:
        message = f"{message[: _SHOWN_CHARACTERS // 2]} … {message[-_SHOWN_CHARACTERS // 2 :]}"
    return f"{place}: {message}" if place else message


def _find_misfit(fields: dict[str, Any]) -> str | None:
    """Fields that are right by themselves and do not fit together; None if all do."""
    for graph in fields.get("further_graphs", ()):
        if graph["file"] not in fields["files"]:
            return f"further_graphs: {graph['file']} is not one of its files"
    labels, num_outputs = fields["labels"], fields["num_outputs"]
    if TASKS[fields["task"]].has_labels and len(labels) != num_outputs:
        return f"labels: {len(labels)} for num_outputs {num_outputs}"
    misfit = _find_misfit_of_profile("cost_profile", fields["cost_profile"])
    return misfit or _find_misfit_of_cascade(fields)


def _find_misfit_of_profile(name: str, profile: dict[str, Any]) -> str | None:
    lengths = profile["lengths"]
    if not _is_ascending(lengths):
        return f"{name}.lengths: not ascending"
    for column in ("seconds_per_row", "seconds_alone"):
        num_seconds = len(profile.get(column, ()))
        if num_seconds not in (0, len(lengths)):
            return f"{name}.{column}: {num_seconds} for {len(lengths)} lengths"
    return None


def _find_misfit_of_cascade(fields: dict[str, Any]) -> str | None:
    cascade, files = fields.get("cascade"), fields["files"]
    if cascade is None:
        return f"files: {SECOND_FILE} is of no cascade" if SECOND_FILE in files else None
    if not TASKS[fields["task"]].has_labels:
        return f"cascade: {fields['task']} has no labels to be sure of"
    if SECOND_FILE not in files:
        return f"cascade: {SECOND_FILE} is not one of its files"
    if fields.get("further_graphs") or fields["precision"] not in CASCADE_PRECISIONS:
        return f"cascade: its graphs are for CPUs, in {' or '.join(CASCADE_PRECISIONS)}"
    lengths, shares = (cascade["share_by_length"][name] for name in ("lengths", "shares"))
    if not _is_ascending(lengths):
        return "cascade.share_by_length.lengths: not ascending"
    if len(shares) != len(lengths):
        return f"cascade.share_by_length.shares: {len(shares)} for {len(lengths)} lengths"
    names = ("first_profile", "second_profile")
    misfits = (_find_misfit_of_profile(f"cascade.{name}", cascade[name]) for name in names)
    return next((misfit for misfit in misfits if misfit is not None), None)


def _is_ascending(values: list[float]) -> bool:
    return all(first < second for first, second in itertools.pairwise(values))


@cache
def _validator() -> "Draft202012Validator":
    """The schema's validator; a number is finite, 2.0 is no integer, and a quality may be NaN."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    def is_number(checker: object, value: object) -> bool:
        return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]

    types = Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "integer": lambda checker, value: type(value) is int,
            "number": is_number,
            "quality": lambda checker, value: type(value) in (int, float) and not math.isinf(value),
        }
    )
    validator: Draft202012Validator = extend(Draft202012Validator, type_checker=types)(_SCHEMA)
    return validator
