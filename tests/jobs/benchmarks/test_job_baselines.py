import json
import sys

import pyarrow.parquet
import pytest

from fastformers.cluster.settings import CorpusSettings
from fastformers.errors import InputError
from fastformers.jobs.benchmarks import job_baselines
from fastformers.jobs.benchmarks.job_baselines import (
    BaselineJob,
    BaselineResult,
    run_baseline,
    write_different_texts,
)
from fastformers.jobs.benchmarks.parts import NotRun

WORK = BaselineJob(
    files=("a.parquet", "b.parquet"),
    model="model",
    stock_graph="stock.onnx",
    tokenizer="tokenizer.json",
    max_length=128,
    scratch="scratch",
)
ANSWER = {"rows": 40, "seconds": 2.5, "setting": "as told", "versions": {"ray": "2.50"}}


def written(files):
    tables = [pyarrow.parquet.read_table(file) for file in files]
    assert all(table.column_names == ["id", "text"] for table in tables)
    ids = [row for table in tables for row in table["id"].to_pylist()]
    assert ids == list(range(len(ids)))
    return [table["text"].to_pylist() for table in tables]


@pytest.mark.parametrize("name", ["c.parquet", "c.jsonl", "c.csv.gz"])
def test_the_first_good_texts_that_differ_are_written_in_their_order(
    write_rows, tmp_path, monkeypatch, name
):
    monkeypatch.setattr(job_baselines, "_FILE_ROWS", 2)
    texts = ["one", "two", "one", "", "three", "two", "four", "five", "six"]
    path = write_rows(tmp_path / name, [{"id": n, "body": text} for n, text in enumerate(texts)])
    settings = CorpusSettings(text_column="body")
    files = write_different_texts(
        str(path), settings, num_rows=5, directory=tmp_path / "new" / "texts"
    )
    assert written(files) == [["one", "two"], ["three", "four"], ["five"]]
    assert sorted(files) == files == sorted(map(str, (tmp_path / "new" / "texts").iterdir()))


def test_texts_come_from_all_files_and_all_reads_of_a_file(write_rows, tmp_path, monkeypatch):
    monkeypatch.setattr(job_baselines, "READ_CHUNK_BYTES", 10)  # a CSV file is read bit by bit
    for number in range(3):
        rows = [{"text": f"text {number} {row}"} for row in range(4)]
        write_rows(tmp_path / "corpus" / f"{number}.csv", rows)
    files = write_different_texts(
        str(tmp_path / "corpus"), CorpusSettings(), num_rows=10, directory=tmp_path / "texts"
    )
    assert written(files) == [[f"text {n // 4} {n % 4}" for n in range(10)]]


def test_a_small_corpus_gives_what_it_has(write_rows, tmp_path):
    path = write_rows(tmp_path / "c.parquet", [{"text": f"text {n % 7}"} for n in range(20)])
    settings = CorpusSettings(limit=5)
    few = write_different_texts(str(path), settings, num_rows=100, directory=tmp_path / "few")
    assert written(few) == [[f"text {n}" for n in range(5)]]
    all_of_it = CorpusSettings()
    files = write_different_texts(str(path), all_of_it, num_rows=100, directory=tmp_path / "all")
    assert written(files) == [[f"text {n}" for n in range(7)]]


def test_a_corpus_without_the_column_is_refused(write_rows, tmp_path):
    path = write_rows(tmp_path / "c.parquet", [{"text": "one"}])
    settings = CorpusSettings(text_column="body")
    with pytest.raises(InputError, match="'body'"):
        write_different_texts(str(path), settings, num_rows=1, directory=tmp_path / "texts")


@pytest.fixture
def interpreter(tmp_path):
    """Write an executable that a baseline is run with in place of Python."""

    def write(*lines, shell="/bin/sh"):
        path = tmp_path / "interpreter"
        path.write_text("\n".join([f"#!{shell}", *lines]) + "\n")
        path.chmod(0o755)
        return path

    return write


def test_a_baseline_is_told_its_work_and_its_last_line_is_the_answer(interpreter, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    python = interpreter(
        "import json, os, sys",
        "print('a progress bar')",
        "sys.stderr.write('a warning')",
        "seen = {'work': json.load(sys.stdin), 'arguments': sys.argv[1:]}",
        "seen['set'] = sorted({'RAY_ADDRESS', 'PYTHONPATH', 'HF_HUB_OFFLINE'} & set(os.environ))",
        f"print(json.dumps({ANSWER!r} | {{'setting': json.dumps(seen)}}))",
        shell=sys.executable,
    )
    result = run_baseline("ray-tuned", WORK, num_workers=2, python=python)
    assert isinstance(result, BaselineResult)
    assert (result.rows, result.seconds, result.versions) == (40, 2.5, {"ray": "2.50"})
    seen = json.loads(result.setting)
    script, name = seen["arguments"]
    assert (script.endswith("jobs/benchmarks/baseline_scripts.py"), name) == (True, "ray-tuned")
    assert seen["work"].pop("num_workers") == 2
    assert BaselineJob(**{**seen["work"], "files": tuple(seen["work"]["files"])}) == WORK
    assert seen["set"] == ["HF_HUB_OFFLINE"]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["echo Traceback >&2", "echo 'ModuleNotFoundError: no ray' >&2", "exit 1"], "no ray"),
        ([f"echo '{json.dumps(ANSWER)}'", "exit 3"], "exit status 3"),
        (["kill -9 $$"], "exit status -9"),
        (["exit 0"], "exit status 0"),
        (["echo", "echo 'ran out of texts' >&2"], "ran out of texts"),
        (["echo done"], "answered 'done'"),
        (['echo \'{"rows": 3, "secs": 1}\''], "answered"),
    ],
)
def test_a_baseline_that_gives_no_answer_gives_a_reason(interpreter, lines, reason):
    result = run_baseline(
        "pipeline", WORK, num_workers=2, python=interpreter("cat > /dev/null", *lines)
    )
    assert isinstance(result, NotRun)
    assert reason in result.reason


def test_a_baseline_that_takes_too_long_is_stopped(interpreter, monkeypatch):
    monkeypatch.setattr(job_baselines, "_TIMEOUT_S", 0.2)
    result = run_baseline("pipeline", WORK, num_workers=2, python=interpreter("exec sleep 60"))
    assert result == NotRun(reason="took more than 0.2 s")
