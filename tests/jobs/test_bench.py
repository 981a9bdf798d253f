"""`fastformers bench` from arguments to the last line, on models of random weights."""

import itertools
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet
import pytest

from fastformers.benchmark import comparison, operator_profile
from fastformers.benchmark.timing import measure_rates
from fastformers.cluster.cost.machine_profile import load_profiles
from fastformers.cluster.execution.topology import discover_topology
from fastformers.installation import how_to_install
from fastformers.jobs import bench as bench_module
from fastformers.jobs.benchmarks import arguments
from fastformers.jobs.benchmarks.parts import NotRun
from fastformers.jobs.benchmarks.peers import runners
from fastformers.jobs.benchmarks.peers.catalog import JOB_BASELINES
from fastformers.jobs.benchmarks.peers.run_baseline import JobRun
from fastformers.jobs.benchmarks.subject import Subject
from fastformers.jobs.console.cli import main

RATIOS = {
    "engine_over_stock",
    "engine_over_openvino",
    "engine_of_peak",
    "job_over_engine",
}
JOB_OVER_BASELINES = {f"job_over_{name.replace('-', '_')}" for name in JOB_BASELINES}
JOB_OVER_BASELINES |= {"job_over_best_ray_data", "job_over_best_sentence_transformers"}
RATIOS |= JOB_OVER_BASELINES
NO_BASELINES = dict.fromkeys(JOB_OVER_BASELINES, "--parts leaves peers out")
# 40 different texts, every fourth of them twice, and one that cannot be scored.
TEXTS = [f"the {'cat ' * (n % 9)}{n} ran" for n in range(40)]
CORPUS = [*TEXTS, *TEXTS[::4], ""]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "corpus.parquet"
    pyarrow.parquet.write_table(pa.table({"text": CORPUS, "stars": ["yes"] * len(CORPUS)}), path)
    return path


@pytest.fixture
def bench(capsys, monkeypatch):
    """Run it in this process, with as little time on the clock as a measurement can take."""
    monkeypatch.setattr(comparison, "measure_rates", partial(measure_rates, shape_s=0.0))
    monkeypatch.setattr(operator_profile, "_GEMM_SIZES", (16,))
    monkeypatch.setattr(operator_profile, "_GEMM_S", 0.01)

    def run(*options):
        status = main(["bench", *map(str, options)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def check_reasons(summary):
    """A ratio that is null has its reason, and one that is not has none."""
    assert summary.keys() >= RATIOS
    assert summary["not_run"].keys() == {name for name in RATIOS if summary[name] is None}


def test_engines_and_operators_without_a_checkpoint(bench, long_bundle, corpus):
    status, out, err = bench(
        *(corpus, "--bundle", long_bundle.path, "--parts", "engines,operators"),
        *("--sample-rows", 30, "--repeats", 1),
    )
    assert status == 0, err
    summary = json.loads(out.splitlines()[-1])
    assert len(out.splitlines()) == 1
    check_reasons(summary)
    assert summary["not_run"] == {
        "engine_over_stock": "no --teacher",
        "engine_over_openvino": "no --teacher",
        "job_over_engine": "--parts leaves job out",
        **NO_BASELINES,
    }
    assert summary["engine_of_peak"] > 0
    assert (summary["engine"], summary["weights"]) == ("onnxruntime", "random")
    one = summary["engines"][0]
    assert one["num_threads"] == 1
    assert one["tokens_per_second"]["rows"]["fastformers onnxruntime"] > 0
    assert one["agreement"]["fastformers onnxruntime"] == 1.0
    assert (summary["format_version"], summary["corpus"]) == (2, str(corpus))
    assert summary["versions"].keys() == {"fastformers", "onnxruntime", "ray"}
    for words in ("Engines, 1 thread: tokens/s", "Operators, 8x128", "not run: no --teacher"):
        assert words in err


def test_without_a_corpus_the_fixed_shapes_are_measured(bench, long_bundle):
    status, out, err = bench("--bundle", long_bundle.path, "--parts", "engines,job", "--repeats", 1)
    assert status == 0, err
    summary = json.loads(out)
    check_reasons(summary)
    assert summary["not_run"]["job_over_engine"] == "no corpus"
    assert summary["not_run"]["engine_of_peak"] == "--parts leaves operators out"
    assert "rows" not in summary["engines"][0]["tokens_per_second"]
    status, out, err = bench("--bundle", long_bundle.path, "--parts", "operators")
    assert json.loads(out)["not_run"]["engine_of_peak"] == "--parts leaves engines out"


@pytest.fixture
def fake_jobs(monkeypatch, long_bundle, make_report, tmp_path):
    """Whole jobs that take as long as a test says, after a first run of a second each."""
    read = {"ours": []}
    seconds = {"ours": iter([1.0, 1.0, 4.0, 2.0])}

    def texts_of(files):
        tables = [pyarrow.parquet.read_table(file) for file in files]
        return [text for table in tables for text in table["text"].to_pylist()]

    def execute(score_job, actors, price):
        texts = texts_of(f.path for f in score_job.corpus.files)
        read["ours"].append(texts)
        setup_s = 10.0
        wall_s = setup_s + next(seconds["ours"])
        return make_report(rows=len(texts), wall_s=wall_s, setup_s=setup_s, num_actors=3)

    def run_baseline(name, work, part, *, python, output):
        read.setdefault(name, []).append((texts_of(part.files), work, python))
        if name == "pipeline":
            return NotRun(reason="ImportError: pip install 'x[y]'")
        return JobRun(
            rows=part.num_rows,
            seconds=next(seconds[name]),
            startup_s=3.0,
            setting=f"{work.num_workers} workers",
            versions={"ray": "2"},
            labels=dict.fromkeys(part.ids, long_bundle.labels[1]),
        )

    def open_fake(bundle_path, teacher, **_):
        return Subject(
            bundle=long_bundle,
            baselines=SimpleNamespace(
                stock_graph=tmp_path / "stock.onnx", float_graph=tmp_path / "float.onnx"
            ),
            checkpoint=tmp_path / "checkpoint",
            rows=None,
        )

    monkeypatch.setattr(runners, "execute", execute)
    monkeypatch.setattr(runners, "run_baseline", run_baseline)
    monkeypatch.setattr(runners, "_seconds_to_load", lambda bundle, engine: 0.0)
    monkeypatch.setattr(runners, "open_environment", lambda e, d, log: d / e.name / "python")
    monkeypatch.setattr(bench_module, "open_subject", open_fake)
    monkeypatch.setattr(arguments, "check_model_directory", lambda path: None)
    return read, seconds


def test_baselines_and_ours_score_different_texts_in_turns(
    bench, fake_jobs, corpus, long_bundle, tmp_path
):
    pytest.importorskip("matplotlib")
    read, seconds = fake_jobs
    seconds["ray-tuned"] = iter([1.0, 5.0, 4.0, 100.0])
    status, out, err = bench(
        *(corpus, "--bundle", long_bundle.path, "--teacher", "T", "--parts", "peers"),
        *("--peers", "ray-tuned,pipeline", "--peer-rows", 20, "--min-seconds", 60),
        *("--plot", tmp_path / "bench.svg", "--label-column", "stars"),
    )
    assert status == 0, err
    summary = json.loads(out)
    ratio = f"{summary['job_over_ray_tuned']:.1f}x"
    assert f"4 rows/s (fastformers: {ratio})" in (tmp_path / "bench.svg").read_text()
    check_reasons(summary)
    assert read["ours"] == [TEXTS[:20]] * 4
    assert [texts for texts, _, _ in read["ray-tuned"]] == [TEXTS[:20]] * 4
    work = read["ray-tuned"][0][1]
    assert work.max_length == 128
    assert work.tokenizer.endswith("checkpoint/tokenizer.json")
    ours = summary["ours_beside_peers"]
    assert ours["rows_per_second"] == pytest.approx(10.0, rel=0.1)  # the median; no setting up
    assert (ours["rows"], len(ours["rows_per_second_by_turn"])) == (20, 3)
    assert summary["job_over_ray_tuned"] == pytest.approx(5.0, rel=0.1)  # turn by turn: 5, 1, 50
    assert summary["job_over_best_ray_data"] == summary["job_over_ray_tuned"]
    assert summary["peers"] == {
        "ray-tuned": {
            "rows_per_second": 4.0,
            "rows_per_second_by_turn": [4.0, 5.0, 0.2],
            "rows": 20,
            "seconds": 5.0,
            "startup_s": 3.0,
            "accuracy": 1.0,
            "setting": f"{work.num_workers} workers",
            "versions": {"ray": "2"},
        }
    }
    assert summary["not_run"]["job_over_pipeline"] == "ImportError: pip install 'x[y]'"
    assert summary["not_run"]["job_over_ray_padded_64"] == "--peers leaves it out"
    assert "ImportError: pip install 'x[y]'" in err
    assert "all 20 texts last 1 s of 60; for longer runs give a larger CORPUS" in err


def test_all_baselines_run_each_under_its_interpreter(
    bench, fake_jobs, corpus, long_bundle, tmp_path
):
    read, seconds = fake_jobs
    seconds |= {name: itertools.repeat(1.0) for name in JOB_BASELINES}
    status, out, err = bench(
        *(corpus, "--bundle", long_bundle.path, "--teacher", "T", "--parts", "peers"),
        *("--peers", "all", "--peer-env", tmp_path / "env", "--repeats", 1),
    )
    assert status == 0, err
    summary = json.loads(out)
    check_reasons(summary)
    assert summary["peers"].keys() == {*JOB_BASELINES} - {"pipeline", "static-vectors"}
    assert summary["not_run"]["job_over_static_vectors"].endswith("give --static-bundle")
    for name, job in JOB_BASELINES.items():
        if name != "static-vectors":
            own = tmp_path / "env" / job.environment.name / "python" if job.environment else None
            assert read[name][0][2] == (own or Path(sys.executable))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("CORPUS", "give --bundle, or --shape"),
        ("CORPUS --bundle BUNDLE --shape student", "give --bundle, or --shape"),
        ("CORPUS --shape student", "--shape student: give --teacher"),
        ("CORPUS --shape student --teacher none", "--teacher none: has no tokenizer.json"),
        ("CORPUS --bundle BUNDLE --teacher none", "none: no config.json"),
        ("CORPUS --bundle BUNDLE --parts engine", "--parts engine: not one of engines, operators"),
        ("CORPUS --bundle BUNDLE --peers spark", "--peers spark: not one of ray-tuned, ray-expert"),
        ("CORPUS --bundle BUNDLE --peers all", "--peers: give --teacher"),
        (
            "CORPUS --bundle BUNDLE --teacher T --peers all --peer-train t.csv",
            "--peer-train t.csv: give --label-column, too",
        ),
        (
            "CORPUS --bundle BUNDLE --teacher T --peers all --min-seconds 0",
            "--min-seconds 0: give more than 0",
        ),
        ("CORPUS --bundle BUNDLE --repeats 0", "--repeats 0: give at least 1"),
        (
            "CORPUS --bundle BUNDLE --teacher T --peers all --peer-rows 0",
            "--peer-rows 0: give at least 1",
        ),
        ("CORPUS --bundle BUNDLE --sample-rows -1", "--sample-rows -1: give at least 1"),
        ("CORPUS --bundle BUNDLE --limit 0", "--limit 0: give at least 1"),
        ("CORPUS --bundle BUNDLE --timeout-s 0", "--timeout-s 0: give more than 0"),
        ("CORPUS --bundle BUNDLE --usd-per-hour -1", "--usd-per-hour must be above 0"),
        ("CORPUS --bundle BUNDLE --plot none/bench.png", "--plot none/bench.png: no such"),
        ("CORPUS --bundle BUNDLE --cores-per-actor auto", "--cores-per-actor auto: engines and"),
        ("--shape student --teacher TEACHER --profile-out p.json", "--profile-out: a profile is"),
        ("CORPUS --bundle BUNDLE --plot bench.txt", "--plot bench.txt: give a name"),
        ("CORPUS --bundle BUNDLE --plot bench.svg", "--plot bench.svg: shows whole jobs beside"),
        (
            "--bundle BUNDLE --teacher T --peers all --plot bench.svg",
            "--peers does nothing here: the part peers does not run; give CORPUS",
        ),
        (
            "CORPUS --bundle BUNDLE --teacher T --peers all --parts job --plot bench.svg",
            "--peers does nothing here: the part peers does not run; give CORPUS",
        ),
        ("--from-json kept.json", "--from-json: give --plot"),
        ("CORPUS --from-json kept.json --plot bench.svg", "--from-json measures nothing; leave"),
        ("--teacher T --from-json kept.json --plot bench.svg", "--from-json measures nothing;"),
        ("--from-json kept.json --plot bench.svg", "kept.json: No such file"),
        ("CORPUS --bundle BUNDLE --output FULL", "not empty, so less would be measured"),
        ("CORPUS --bundle BUNDLE --text-column body", "'body'"),
        ("none.parquet --bundle BUNDLE", "none.parquet: no such file"),
        ("CORPUS --bundle none", "none: not a bundle"),
    ],
)
def test_bad_input_gets_one_line(bench, corpus, long_bundle, options, message):
    paths = {"CORPUS": corpus, "BUNDLE": long_bundle.path, "FULL": corpus.parent}
    if "--plot" in options:
        pytest.importorskip("matplotlib")
    status, out, err = bench(*(paths.get(word, word) for word in options.split()))
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_text_pairs_are_refused_before_anything_is_measured(bench, corpus, long_bundle, capsys):
    with pytest.raises(SystemExit) as end:
        bench(corpus, "--bundle", long_bundle.path, "--text-pair-column", "stars")
    assert end.value.code == 2
    assert "unrecognized arguments: --text-pair-column" in capsys.readouterr().err


def test_a_picture_is_refused_without_its_extra_before_anything_is_measured(
    bench, fake_jobs, corpus, long_bundle, monkeypatch, tmp_path
):
    read, _ = fake_jobs
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, out, err = bench(
        *(corpus, "--bundle", long_bundle.path, "--teacher", "T", "--parts", "peers"),
        *("--peers", "all", "--plot", tmp_path / "bench.svg"),
    )
    assert (status, out) == (2, "")
    assert how_to_install("report") in err
    assert read == {"ours": []}


def test_a_kept_last_line_is_drawn_without_measuring(
    bench, fake_jobs, corpus, long_bundle, monkeypatch, tmp_path
):
    pytest.importorskip("matplotlib")
    _, seconds = fake_jobs
    seconds["ray-tuned"] = itertools.repeat(5.0)
    status, out, err = bench(
        *(corpus, "--bundle", long_bundle.path, "--teacher", "T", "--parts", "peers"),
        *("--peers", "ray-tuned", "--repeats", 3, "--plot", tmp_path / "first.svg"),
    )
    assert status == 0, err
    kept = tmp_path / "kept.json"
    kept.write_text(out)
    monkeypatch.setattr(bench_module, "open_subject", None)
    status, again, err = bench("--from-json", kept, "--plot", tmp_path / "again.svg")
    measured = {key: value for key, value in json.loads(out).items() if key != "measured"}
    assert (status, json.loads(again), err) == (0, measured, "")
    first, second = (tmp_path / name for name in ("first.svg", "again.svg"))
    assert first.read_bytes() == second.read_bytes()


def test_a_kept_last_line_without_whole_jobs_is_one_line(bench, long_bundle, tmp_path):
    pytest.importorskip("matplotlib")
    status, out, err = bench("--bundle", long_bundle.path, "--parts", "engines", "--repeats", 1)
    assert status == 0, err
    kept = tmp_path / "kept.json"
    kept.write_text(out)
    status, out, err = bench("--from-json", kept, "--plot", tmp_path / "bench.svg")
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.endswith("no whole jobs were measured: --parts leaves peers out")


_QUICKLY = """
import sys
from functools import partial
from fastformers.benchmark import comparison, operator_profile
from fastformers.benchmark.timing import measure_rates
from fastformers.jobs.console.cli import main
comparison.measure_rates = partial(measure_rates, shape_s=0.01)
operator_profile._GEMM_SIZES, operator_profile._GEMM_S = (64,), 0.01
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.cluster
def test_a_whole_job_beside_its_engine_alone(corpus, long_bundle, tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-c", _QUICKLY, "bench", str(corpus)),
            *("--bundle", str(long_bundle.path), "--parts", "engines,operators,job"),
            *(
                "--repeats",
                "1",
                "--num-actors",
                "1",
                "--usd-per-hour",
                "1",
                "--output",
                str(tmp_path / "out"),
            ),
            *("--profile-out", str(tmp_path / "profiles" / "here.json")),
        ],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    check_reasons(summary)
    assert summary["not_run"] == {
        "engine_over_stock": "no --teacher",
        "engine_over_openvino": "no --teacher",
        **NO_BASELINES,
    }
    assert summary["engine_of_peak"] > 0
    assert (summary["rows"], summary["unique_rows"]) == (len(CORPUS), len(TEXTS))
    assert summary["num_actors"] == 1
    assert summary["job_over_engine"] == pytest.approx(
        summary["job_rows_per_second"] / summary["engine_rows_per_second"]
    )
    assert 0 < summary["job_over_engine"] < 1  # starting Ray alone takes longer than the rows
    assert 0 < summary["saved_by_scoring_equal_texts_once"] < 0.5
    report = json.loads((tmp_path / "out" / "scored-0" / "__run__" / "report.json").read_text())
    assert report["rows"] == len(CORPUS)
    assert "engine alone" in done.stderr
    assert summary["predicted_over_inferred"] > 0
    (profile,) = load_profiles([tmp_path / "profiles"], [long_bundle])
    assert profile.num_workers == discover_topology().num_usable_cores
    assert profile.origin == "calibration"
