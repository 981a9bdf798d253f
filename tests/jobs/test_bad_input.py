"""Every kind of bad input gets one clear line and exit status 2, before anything is started."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet
import pytest

from cluster.shards.identity import FORMAT_VERSION
from jobs.console.cli import main


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus" / "a.parquet"
    path.parent.mkdir()
    table = pa.table({"text": ["one", "two"] * 500, "stars": [1, 2] * 500})
    pyarrow.parquet.write_table(table, path)
    return path


@pytest.fixture
def refused(capsys, tmp_path, bundle):
    """Run `fastformers score` and return the one line it is refused with."""

    def run(corpus, *options, bundle_path=bundle.path, output=tmp_path / "out"):
        arguments = ["score", str(corpus), "--bundle", str(bundle_path), "--output", str(output)]
        status = main([*arguments, *map(str, options)])
        captured = capsys.readouterr()
        lines = captured.err.splitlines()
        assert status == 2, captured.err
        assert len(lines) == 1, lines
        assert captured.out == ""
        return lines[0]

    return run


def copy_bundle(bundle, tmp_path):
    shutil.copytree(bundle.path, tmp_path / "copy")
    return tmp_path / "copy"


def test_no_such_file(refused, tmp_path):
    line = refused(tmp_path / "none.parquet")
    assert "none.parquet: no such file" in line


def test_empty_corpus(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no .parquet, .jsonl" in refused(tmp_path / "empty")
    pyarrow.parquet.write_table(
        pa.table({"text": pa.array([], pa.string())}), tmp_path / "e.parquet"
    )
    assert "the corpus is empty" in refused(tmp_path / "e.parquet")
    (tmp_path / "e.csv").write_text("id,text\n")
    assert "the corpus is empty" in refused(tmp_path / "e.csv")
    (tmp_path / "e.jsonl").write_text("")
    assert "the corpus is empty" in refused(tmp_path / "e.jsonl")


def test_missing_column_names_those_that_exist(refused, corpus):
    line = refused(corpus, "--text-column", "body")
    assert "'body'" in line
    assert "text, stars" in line
    assert "'rank'" in refused(corpus, "--keep-columns", "rank")


def test_text_column_of_another_type(refused, corpus):
    line = refused(corpus, "--text-column", "stars")
    assert "'stars' holds int64, not text" in line


def test_truncated_and_foreign_parquet_are_named(refused, corpus):
    cut = corpus.parent / "b.parquet"
    cut.write_bytes(corpus.read_bytes()[: corpus.stat().st_size // 2])
    line = refused(corpus.parent)
    assert "b.parquet: cannot be read" in line
    assert "--skip-unreadable-files" in line
    cut.write_text("this is no Parquet file")
    assert "b.parquet: cannot be read" in refused(corpus.parent)


def test_unreadable_files_are_skipped_if_told(capsys, corpus, bundle, tmp_path):
    (corpus.parent / "b.parquet").write_text("this is no Parquet file")
    arguments = ["score", str(corpus.parent), "--bundle", str(bundle.path), "--dry-run"]
    status = main([*arguments, "--output", str(tmp_path / "out"), "--skip-unreadable-files"])
    plan = json.loads(capsys.readouterr().out)
    assert status == 0
    assert plan["files"] == 2
    assert [path.endswith("b.parquet") for path in plan["skipped_files"]] == [True]


def test_bundle_with_a_changed_byte(refused, corpus, bundle, tmp_path):
    model = copy_bundle(bundle, tmp_path) / "model.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    assert "model.onnx differs from its SHA-256" in refused(corpus, bundle_path=model.parent)


def test_bundle_with_a_missing_file(refused, corpus, bundle, tmp_path):
    copy = copy_bundle(bundle, tmp_path)
    (copy / "tokenizer.json").unlink()
    assert "tokenizer.json is missing" in refused(corpus, bundle_path=copy)
    assert "not a bundle" in refused(corpus, bundle_path=tmp_path)


def test_bundle_of_a_newer_format(refused, corpus, bundle, tmp_path):
    manifest = copy_bundle(bundle, tmp_path) / "bundle.json"
    fields = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**fields, "format_version": 99}))
    line = refused(corpus, bundle_path=manifest.parent)
    assert "bundle format 99" in line
    assert "upgrade" in line


def test_bundle_for_pairs_needs_a_pair_column(refused, corpus, pair_bundle):
    line = refused(corpus, bundle_path=pair_bundle.path)
    assert "--text-pair-column" in line


def test_output_that_holds_something_else(refused, corpus, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    line = refused(corpus)
    assert "holds no run of ours" in line
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


def test_output_not_writable(refused, corpus, tmp_path):
    (tmp_path / "file").write_text("")
    line = refused(corpus, output=tmp_path / "file" / "out")
    assert "cannot be written" in line
    assert str(tmp_path / "file" / "out") in line


def test_output_of_another_run(refused, corpus, bundle, tmp_path):
    identity = {"corpus files": "other", "max batch tokens": 256}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text(
        json.dumps({"format_version": FORMAT_VERSION, "identity": identity})
    )
    line = refused(corpus)
    assert "corpus files" in line
    assert "changed since" in line
    assert "max batch tokens" not in line


def test_unknown_instance_type_suggests_near_names(refused, corpus):
    line = refused(corpus, "--instance-type", "c7i.4xlage")
    assert "c7i.4xlarge" in line
    assert "--usd-per-hour" in line


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--limit", 0), "--limit 0"),
        (("--max-batch-tokens", 0), "--max-batch-tokens 0"),
        (("--shard-seconds", 0), "--shard-seconds 0"),
        (("--timeout-s", -1), "--timeout-s -1"),
        (("--usd-per-hour", -1), "usd-per-hour"),
        (("--usd-per-hour", 1, "--instance-type", "c7i.4xlarge"), "--instance-type"),
        (("--keep-columns", "stars,stars"), "names the column 'stars' twice"),
        (("--text-pair-column", "stars"), "--text-pair-column"),
    ],
)
def test_values_that_make_no_sense_are_refused_by_their_flag(refused, corpus, options, named):
    assert named in refused(corpus, *options)


def test_label_set_that_does_not_match_the_model(capsys, tmp_path, bundle, tokenizer_json):
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer

    config = transformers.BertConfig(
        vocab_size=128,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        id2label={0: "no", 1: "yes"},
        label2id={"no": 0, "yes": 1},
    )
    teacher = tmp_path / "teacher"
    transformers.BertForSequenceClassification(config).save_pretrained(teacher)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer_json), model_max_length=64
    ).save_pretrained(teacher)
    labeled = tmp_path / "labeled.parquet"
    table = pa.table({"text": ["a cat", "a dog"] * 8, "label": ["yes", "maybe"] * 8})
    pyarrow.parquet.write_table(table, labeled)
    status = main(
        [
            *("compress", "--teacher", str(teacher), "--train", str(labeled)),
            *("--eval", str(labeled), "--output", str(tmp_path / "bundle")),
        ]
    )
    line = capsys.readouterr().err.splitlines()[-1]
    assert status == 2
    assert "'maybe'" in line
    assert "no, yes" in line
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--search",), "--max-accuracy-drop"),
        (("--search", "--max-accuracy-drop", "1", "--student-layers", "4"), "--student-layers 4"),
        (("--search", "--max-accuracy-drop", "1", "--prune-ffn", "0.5"), "--prune-ffn 0.5"),
        (("--search", "--max-accuracy-drop", "1", "--precision", "float16"), "--precision float16"),
        (("--max-accuracy-drop", "-1"), "--max-accuracy-drop -1"),
        (("--prune-rounds", "0"), "--prune-rounds 0"),
        (("--epochs", "0"), "--epochs 0"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused_by_its_flag(capsys, tmp_path, options, named):
    paths = {name: str(tmp_path / name) for name in ("teacher", "train", "eval", "output")}
    files = [part for name, path in paths.items() for part in (f"--{name}", path)]
    assert main(["compress", *files, *options]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert named in line
    assert captured.out == ""


@pytest.mark.parametrize("command", ["score", "prepare"])
def test_a_relative_output_in_a_job_of_rays_job_server(
    capsys, monkeypatch, tmp_path, corpus, bundle, command
):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.chdir(tmp_path)
    arguments = [command, str(corpus), "--bundle", str(bundle.path), "--output", "out"]
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --output out: a job of Ray's job server runs in a directory")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("address", ["ray://head:10001", "http://head:8265"])
def test_an_address_that_is_no_clusters(refused, corpus, address):
    line = refused(corpus, "--address", address)
    assert f"--address {address}: " in line
    assert "use ray job submit --address http://" in line
