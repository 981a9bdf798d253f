"""A directory in which commands go wrong: corpora, bundles, models and outputs, good and broken."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from fastformers.cluster.shards.identity import FORMAT_VERSION
from fastformers.inference.bundle import Bundle


def write_desk(bundle: Bundle, pair_bundle: Bundle) -> None:
    """Write everything into the working directory."""
    write_corpora()
    write_bundles(bundle, pair_bundle)
    write_teachers()
    write_runs()


def write_teachers():
    """Directories of models, each broken in its own way."""
    bert = json.dumps({"model_type": "bert", "architectures": ["BertForSequenceClassification"]})
    configs = {
        "no-json": "{",
        "list": "[]",
        "unknown": '{"model_type": "nope", "architectures": ["NopeModel"]}',
        "no-weights": bert,
        "pointer": bert,
    }
    for name, config in configs.items():
        Path(name).mkdir()
        Path(name, "config.json").write_text(config)
    Path("pointer/model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")


def write_bundles(bundle, pair_bundle):
    """A good one of each kind, and broken ones."""
    shutil.copytree(pair_bundle.path, "pairs")
    for name in ("bundle", "changed", "incomplete", "newer"):
        shutil.copytree(bundle.path, name)
    model = bytearray(Path("changed/model.onnx").read_bytes())
    model[len(model) // 2] ^= 1
    Path("changed/model.onnx").write_bytes(model)
    Path("incomplete/tokenizer.json").unlink()
    manifest = json.loads(Path("newer/bundle.json").read_text())
    Path("newer/bundle.json").write_text(json.dumps({**manifest, "format_version": 99}))


def write_runs():
    """What may lie where a run should be, or should write."""
    for name in ("mine", "broken", "other"):
        Path(name, "__run__").mkdir(parents=True)
    Path("mine/thesis.txt").write_text("mine")
    for name in ("run.json", "report.json"):
        Path("broken", "__run__", name).write_text("{")
    identity = {"corpus files": "other", "max batch tokens": 256}
    record = {"format_version": FORMAT_VERSION, "identity": identity}
    Path("other/__run__/run.json").write_text(json.dumps(record))


def write_corpora():
    """Corpora and labeled files, good and bad."""
    for name in ("empty", "corpus", "half"):
        Path(name).mkdir()
    table = pa.table({"text": ["one", "two"] * 500, "stars": [1, 2] * 500})
    pyarrow.parquet.write_table(table, "c.parquet")
    pyarrow.parquet.write_table(table.slice(0, 0), "no-rows.parquet")
    shutil.copy("c.parquet", "half/a.parquet")
    Path("half/b.parquet").write_bytes(Path("c.parquet").read_bytes()[:600])
    texts = {
        "c.csv": "id,text\n1,a cat\n",
        "corpus/c.csv": "id,text\n1,a cat\n",
        "t.csv": "text,label\na cat,yes\na dog,no\n",
        "one.csv": "text,label\na cat,yes\na dog,yes\n",
        "unlabeled.csv": "text,label\na cat,\na dog,\n",
        "file": "x",
        "bad.json": "{",
        "list.json": "[1]",
    }
    for name, text in texts.items():
        Path(name).write_text(text)
