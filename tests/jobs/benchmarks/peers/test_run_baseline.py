import json
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from fastformers.jobs.benchmarks.parts import NotRun
from fastformers.jobs.benchmarks.peers import run_baseline as module
from fastformers.jobs.benchmarks.peers.catalog import JOB_BASELINES
from fastformers.jobs.benchmarks.peers.run_baseline import JobRun, run_baseline
from fastformers.jobs.benchmarks.peers.scripts.main import RUN
from fastformers.jobs.benchmarks.peers.scripts.work import Work
from fastformers.jobs.benchmarks.peers.texts import Part

PART = Part(directory=Path("texts"), files=("a.parquet", "b.parquet"), ids=(3, 7))
ANSWER = {"seconds": 2.5, "startup_s": 1.5, "setting": "as told", "versions": {"ray": "2.50"}}


@pytest.fixture
def work(tmp_path):
    return Work(
        files=(),
        model="model",
        stock_graph="stock.onnx",
        float_graph="float.onnx",
        tokenizer="tokenizer.json",
        labels=("bad", "good"),
        max_length=128,
        train=None,
        scratch=str(tmp_path / "scratch"),
        output="",
        num_workers=2,
        started_at=0.0,
    )


@pytest.fixture
def interpreter(tmp_path):
    """Write an executable that a baseline is run with in place of Python."""

    def write(*lines, shell="/bin/sh"):
        path = tmp_path / "interpreter"
        path.write_text("\n".join([f"#!{shell}", *lines]) + "\n")
        path.chmod(0o755)
        return path

    return write


@pytest.fixture
def predictions(tmp_path):
    """Write what a baseline would have predicted."""

    def write(**columns):
        path = tmp_path / "output"
        path.mkdir()
        pyarrow.parquet.write_table(pa.table(columns), path / "part.parquet")
        return path

    return write


def test_a_baseline_is_told_its_work_and_its_last_line_is_the_answer(
    interpreter, predictions, work, monkeypatch
):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    output = predictions(id=[7, 3], label=["good", "bad"])
    python = interpreter(
        "import json, os, sys",
        "print('a progress bar')",
        "sys.stderr.write('a warning')",
        "seen = {'work': sys.stdin.read(), 'arguments': sys.argv[1:]}",
        "seen['set'] = sorted({'RAY_ADDRESS', 'HF_HUB_OFFLINE'} & set(os.environ))",
        "seen['path'] = sorted(os.listdir(os.environ['PYTHONPATH']))",
        f"print(json.dumps({ANSWER!r} | {{'setting': json.dumps(seen)}}))",
        shell=sys.executable,
    )
    result = run_baseline("ray-tuned", work, PART, python=python, output=output)
    assert isinstance(result, JobRun)
    assert (result.rows, result.seconds, result.startup_s) == (2, 2.5, 1.5)
    assert result.labels == {3: "bad", 7: "good"}
    seen = json.loads(result.setting)
    assert seen["arguments"] == ["-P", "-m", module.main.__name__, "ray-tuned"]
    told = Work.from_json(seen["work"])
    assert (told.files, told.output, told.labels) == (PART.files, str(output), ("bad", "good"))
    assert told.started_at > 1e9
    assert (seen["set"], seen["path"]) == (["HF_HUB_OFFLINE"], ["fastformers"])


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["echo Traceback >&2", "echo 'ModuleNotFoundError: no ray' >&2", "exit 1"], "no ray"),
        ([f"echo '{json.dumps(ANSWER)}'", "exit 3"], "exit status 3"),
        (["kill -9 $$"], "exit status -9"),
        (["exit 0"], "exit status 0"),
        (["echo", "echo 'ran out of texts' >&2"], "ran out of texts"),
        (["echo 'no texts' >&2", "echo 'a.py:2: UserWarning: leaked' >&2", "exit 1"], "no texts"),
        (["echo 'ValueError: below' >&2", "echo 'ran above it' >&2", "exit 1"], "ran above it"),
        (["echo done"], "answered 'done'"),
        (['echo \'{"seconds": 3, "secs": 1}\''], "answered"),
    ],
)
def test_a_baseline_that_gives_no_answer_gives_a_reason(
    interpreter, predictions, work, lines, reason
):
    output = predictions(id=[3, 7])
    python = interpreter("cat > /dev/null", *lines)
    result = run_baseline("pipeline", work, PART, python=python, output=output)
    assert isinstance(result, NotRun)
    assert reason in result.reason


# What vLLM said of a model with heads of 26, on which of the two streams, the rest of it left out.
SAID_OF_ANOTHER = (
    "EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause."
)
CAUSE = "Unsupported CPU attention configuration: head_dim=26 isa=1 kv_cache_idx=0"
IN_WORKER = f"(Worker pid=6415) ERROR 11-26 [executor.py:1063] RuntimeError: {CAUSE}"
IN_ENGINE = (
    f"(EngineCore pid=6385) ERROR 11-26 [core.py:1512] RuntimeError: Worker failed with error "
    f"'{CAUSE}', please check the stack trace above for the root cause"
)


@pytest.mark.parametrize(
    ("logged", "reason"),
    [
        ([IN_WORKER, IN_ENGINE], CAUSE),
        ([IN_WORKER], f"RuntimeError: {CAUSE}"),
        ([f"{IN_WORKER}{'=' * 1000}"], f"RuntimeError: {CAUSE}{'=' * 1000}"[:300]),
        (["INFO 11-26 loaded"], SAID_OF_ANOTHER),
    ],
)
@pytest.mark.parametrize("stream", [1, 2])
def test_the_reason_is_what_the_last_line_points_to(
    interpreter, predictions, work, logged, reason, stream
):
    output = predictions(id=[3, 7])
    said = [f"vllm.v1.{SAID_OF_ANOTHER}", SAID_OF_ANOTHER, "a.py:2: UserWarning: x", "  warn(x)"]
    python = interpreter(
        "cat > /dev/null",
        *(f'echo "{line}" >&{stream}' for line in logged),
        *(f'echo "{line}" >&2' for line in said),
        "exit 1",
    )
    result = run_baseline("vllm", work, PART, python=python, output=output)
    assert result == NotRun(reason=reason)


@pytest.mark.parametrize(("ids", "found"), [([3], 1), ([3, 8], 2), (None, 0)])
def test_a_baseline_that_did_not_write_every_row_did_not_run(
    interpreter, predictions, work, tmp_path, ids, found
):
    output = tmp_path / "none" if ids is None else predictions(id=ids)
    python = interpreter("cat > /dev/null", f"echo '{json.dumps(ANSWER)}'")
    result = run_baseline("vllm", work, PART, python=python, output=output)
    assert result == NotRun(reason=f"wrote {found} of 2 rows")


def test_embeddings_are_rows_without_labels(interpreter, predictions, work):
    output = predictions(id=[3, 7], embedding=[[1.0], [2.0]])
    python = interpreter("cat > /dev/null", f"echo '{json.dumps(ANSWER)}'")
    result = run_baseline("vllm", work, PART, python=python, output=output)
    assert (result.rows, result.labels) == (2, {})


def test_a_baseline_that_takes_too_long_is_stopped(interpreter, work, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_TIMEOUT_S", 0.2)
    result = run_baseline(
        "pipeline", work, PART, python=interpreter("exec sleep 60"), output=tmp_path / "o"
    )
    assert result == NotRun(reason="took more than 0.2 s")


@pytest.mark.parametrize("last", ["sleep 60", "exit 1"])
def test_what_a_baseline_has_started_ends_with_it(interpreter, work, tmp_path, monkeypatch, last):
    """It takes cores from the next one, and holds open what it inherited."""
    monkeypatch.setattr(module, "_TIMEOUT_S", 1.0)
    kept = tmp_path / "pid"
    python = interpreter("cat > /dev/null", "sleep 60 &", f"echo $! > {kept}", last)
    start = time.monotonic()
    result = run_baseline("vllm", work, PART, python=python, output=tmp_path / "o")
    assert isinstance(result, NotRun)
    assert time.monotonic() - start < 30
    started = Path(f"/proc/{kept.read_text().strip()}/stat")
    for _ in range(100):  # whoever adopts it has yet to read its status
        if not started.exists() or started.read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    raise AssertionError("it still runs")


def test_every_baseline_has_its_script_but_our_own_job():
    assert RUN.keys() == JOB_BASELINES.keys() - {"static-vectors"}


def test_under_another_interpreter_a_script_imports_nothing_of_ours_but_its_folder(work, tmp_path):
    """And it says in one line what is not there."""
    code = "import sys; from fastformers.jobs.benchmarks.peers.scripts import main as m; print("
    code += "sorted(n for n, x in sys.modules.items() if getattr(x, '__file__', None) "
    code += "and n.startswith('fastformers') and 'scripts' not in n))"
    environment = module._environment(tmp_path)
    done = module.subprocess.run(
        [sys.executable, "-P", "-S", "-c", code],  # -S: without site-packages
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    packages = ["fastformers", "fastformers.jobs", "fastformers.jobs.benchmarks"]
    packages += ["fastformers.jobs.benchmarks.peers", "fastformers.version"]
    assert done.stdout.strip() == str(packages)
    alone = {**environment, "PATH": str(tmp_path)}
    done = module.subprocess.run(
        [sys.executable, "-P", "-m", module.main.__name__, "text-embeddings-inference"],
        input=json.dumps(module.asdict(work)),
        capture_output=True,
        text=True,
        env=alone,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("text-embeddings-router is not on the PATH")
