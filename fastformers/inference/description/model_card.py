"""The model card: what bundle.json says, for people and for the hub.

    bundle -> [model_card] -> README.md

It opens with the hub's metadata in YAML and goes on with how the bundle is used, how good it is,
how fast it was where it was made, what its graph takes and gives, and what it came from. A card may
be edited: nothing reads it, and no digest covers it. This module knows of no file but the card.

Source:
    https://huggingface.co/docs/hub/model-cards (metadata), Mitchell et al. 2019, arXiv:1810.03993.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from fastformers.inference.cascade.record import describe, second_graph
from fastformers.inference.description.further_graph import graphs_of, qualities_of
from fastformers.inference.description.stage_quality import StageQuality
from fastformers.inference.manifest import CARD_FILE, MANIFEST_FILE, MODEL_FILE, TOKENIZER_FILE

if TYPE_CHECKING:
    from fastformers.inference.bundle import Bundle

# The hub's names of tasks and metrics.
PIPELINE_TAGS = {
    "text-classification": "text-classification",
    "multi-label-classification": "text-classification",
    "regression": "text-classification",
    "multiple-choice": "multiple-choice",
    "embedding": "feature-extraction",
}
_METRIC_TYPES = {
    "accuracy": "accuracy",
    "micro-F1": "f1",
    "F1": "f1",
    "Spearman": "spearmanr",
    "rank agreement": "spearmanr",
}
OUTPUTS = {
    "text-classification": "logits: the label is the largest, softmax gives probabilities",
    "multi-label-classification": "logits: a label holds from 0 on, sigmoid gives probabilities",
    "regression": "the score",
    "multiple-choice": "the score of a choice: the largest of a question is the answer",
    "embedding": "the embedding",
}


def card_of(bundle: "Bundle") -> str:
    """The card that a bundle has, as it was edited; a new one if it has none."""
    path = bundle.path / CARD_FILE
    return path.read_text(encoding="utf-8") if path.is_file() else render_card(bundle)


def has_own_card(bundle: "Bundle") -> bool:
    """Whether its card is as `render_card` makes it, under whatever name, or it has none."""
    card = card_of(bundle)
    heading = re.search(r"^# (.+)$", card, re.MULTILINE)
    return heading is not None and card == render_card(bundle, name=heading[1])


def render_card(bundle: "Bundle", *, name: str | None = None) -> str:
    """The card of a bundle, as Markdown.

    Args:
        bundle: The bundle.
        name: What it is called; by default as its directory.
    """
    name = name or bundle.path.name
    fields = _metadata(bundle, name)
    metadata = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=1000)
    sections = [_summary(bundle, name), _use(bundle, name)]
    if bundle.labels:
        rows = [(str(index), _code(name)) for index, name in enumerate(bundle.labels)]
        sections.append(f"## Labels\n\n{_table(('output', 'label'), rows)}")
    if bundle.stages:
        sections.append(_quality(bundle))
    sections += [_speed(bundle), *_cascade(bundle), _graph(bundle), _origin(bundle)]
    return f"---\n{metadata}---\n\n" + "\n\n".join(sections) + "\n"


def render_interval(stage: StageQuality) -> str:
    """The 95% interval of a stage's quality, in percent: 83.36-85.63."""
    if stage.interval is None:
        return "not known"
    low, high = stage.interval
    return f"{100 * low:.2f}-{100 * high:.2f}"


def render_value(value: object) -> str:
    """A value of a bundle's `provenance`, or one inside it, in one line."""
    if isinstance(value, dict):
        return " ".join(f"{name} {render_value(part)}" for name, part in value.items())
    if isinstance(value, list):
        has_parts = any(isinstance(part, dict) for part in value)
        return ("; " if has_parts else ", ").join(map(render_value, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _metadata(bundle: "Bundle", name: str) -> dict[str, Any]:
    tag = PIPELINE_TAGS.get(bundle.task.name, bundle.task.name)
    metadata: dict[str, Any] = {
        "library_name": "fastformers",
        "pipeline_tag": tag,
        "tags": ["fastformers", "onnx", *graphs_of(bundle)],
    }
    if "teacher_revision" in bundle.provenance:  # the teacher is a repository of the hub
        metadata["base_model"] = str(bundle.provenance["teacher"])
        metadata["base_model_relation"] = "quantized"
    last = bundle.quality
    if last is not None and math.isfinite(last.quality):
        data = str(bundle.provenance.get("eval", "held-out rows"))
        result = {
            "task": {"type": tag, "name": bundle.task.name},
            "dataset": {"type": data, "name": data},
            "metrics": [
                {
                    "type": _METRIC_TYPES.get(last.metric, last.metric),
                    "name": last.metric,
                    "value": round(last.quality, 4),
                }
            ],
        }
        metadata["model-index"] = [{"name": name, "results": [result]}]
    return metadata


def _summary(bundle: "Bundle", name: str) -> str:
    shape = ", ".join(_shape(bundle))
    pairs = "pairs of texts" if bundle.text_pairs else "texts"
    return (
        f"# {name}\n\n"
        f"A fastformers bundle for {bundle.task}: {shape}, in {' and '.join(graphs_of(bundle))}. "
        f"It reads {pairs} of up to {bundle.max_length:,} tokens. It was made from "
        f"{_code(_teacher(bundle))}, whose "
        "license and whose data's license hold for it, too: add `license:` to the lines above."
    )


def _shape(bundle: "Bundle") -> list[str]:
    if bundle.num_layers == 0 and bundle.width is not None:
        return [
            f"no layers, static vectors of {bundle.width:,} values",
            f"{bundle.num_outputs:,} outputs",
        ]
    sizes = [
        (bundle.num_layers, "layers"),
        (bundle.width, "hidden dimensions"),
        (bundle.num_outputs, "outputs"),
    ]
    return [f"{value:,} {noun}" for value, noun in sizes if value is not None]


def _use(bundle: "Bundle", name: str) -> str:
    texts = '[("a text", "another")]' if bundle.text_pairs else '["a text", "another"]'
    return (
        "## Use\n\n"
        "```python\nimport fastformers\n\n"
        f'scorer = fastformers.Scorer("{name}")  # its directory, or hf://org/name\n'
        f"predictions = scorer.score({texts})\n```\n\n"
        f"```sh\nfastformers score CORPUS --bundle {name} --output OUT\n"
        f"fastformers inspect {name}\n```"
    )


def _quality(bundle: "Bundle") -> str:
    columns = ("stage", bundle.metric, "95% interval", "agreement with the teacher", "rows", "MB")
    rows = [
        (
            stage.stage,
            f"{100 * stage.quality:.2f}",
            render_interval(stage),
            f"{100 * stage.agreement:.2f}%",
            f"{stage.num_rows:,}",
            f"{stage.model_bytes / 1e6:.1f}",
        )
        for stage in qualities_of(bundle)
    ]
    origin = bundle.provenance
    where = _code(str(origin.get("eval", "held-out rows")))
    if "select_rows" in origin:
        names = [str(name) for name in origin["chosen_on_select"]]
        where += (
            f", whose rows chose nothing: {' and '.join(names)} {'were' if names[1:] else 'was'} "
            f"chosen on {origin['select_rows']:,} rows of {_code(str(origin['select']))} that "
            "trained nothing"
        )
    return f"## Quality\n\n100 x {bundle.metric} on {where}.\n\n{_table(columns, rows)}"


def _speed(bundle: "Bundle") -> str:
    profile = bundle.cost_profile
    rows = [
        (f"{length:,}", f"{1 / seconds:,.0f}", f"{length / seconds:,.0f}")
        for length, seconds in zip(profile.lengths, profile.seconds_per_row, strict=True)
    ]
    rough = "; it was busy, so they are rough" if profile.is_rough else ""
    both = "" if bundle.cascade is None else ", of both graphs as expected"
    return (
        f"## Speed\n\nOne core of {profile.cpu_model}, {profile.engine}, full batches of rows of "
        f"one length{both}{rough}:\n\n{_table(('tokens of a row', 'rows/s', 'tokens/s'), rows)}"
    )


def _cascade(bundle: "Bundle") -> list[str]:
    """What the second graph is for, where there is one."""
    cascade = bundle.cascade
    if cascade is None:
        return []
    inputs = " and ".join(f"`{name}`" for name in second_graph(bundle).input_names)
    return [
        f"## The cascade\n\n`{MODEL_FILE}` scores every row; {describe(cascade)}. A row's margin "
        "is the log-odds of its label, or where several labels may hold of the least sure one. "
        f"`{cascade.file}` reads the same tokens as {inputs}, and has the same outputs. Another "
        f"library that opens `{MODEL_FILE}` has the first graph alone, whose quality is that of "
        "the last stage before `second`."
    ]


def _graph(bundle: "Bundle") -> str:
    inputs = [("`input_ids`", "int64 (rows, tokens)", f"token ids of `{TOKENIZER_FILE}`")]
    if "token_type_ids" in bundle.input_names:
        inputs.append(("`token_type_ids`", "int64 (rows, tokens)", "the type of each token"))
    output = (
        "`logits`",
        f"float32 (rows, {bundle.num_outputs:,})",
        OUTPUTS.get(bundle.task.name, bundle.task.name),
    )
    return (
        f"## The graph\n\n`{MODEL_FILE}` opens in ONNX Runtime by itself. It takes no attention "
        "mask: the rows of a batch have the same number of tokens, and nothing is padded.\n\n"
        f"{_table(('name', 'type', 'meaning'), [*inputs, output])}"
    )


def _origin(bundle: "Bundle") -> str:
    values = {name: render_value(value) for name, value in bundle.provenance.items()}
    rows = [(_cell(name), _code(value)) for name, value in values.items() if value]
    return (
        f"## Origin\n\n`{MANIFEST_FILE}` has the SHA-256 of each file. What made them:\n\n"
        f"{_table(('what', 'value'), rows)}"
    )


def _teacher(bundle: "Bundle") -> str:
    return str(bundle.provenance.get("teacher", "a model that is not named"))


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _code(text: str) -> str:
    """A text as it stands, as code in a cell of a table."""
    fence = "``" if "`" in text else "`"
    space = " " if fence == "``" else ""
    return f"{fence}{space}{_cell(text)}{space}{fence}" if text else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
