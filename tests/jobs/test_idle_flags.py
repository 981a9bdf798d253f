"""A flag that does nothing beside the others is refused by name, in every command.

The two tables name every flag of every command: what it takes for it to do nothing, or that it
always does something.
"""

import re
import shlex
import sys

import pytest

from fastformers.jobs.console.cli import COMMANDS, main
from tests.jobs.odd.desk import write_desk

COMPRESS = "compress --train t.csv --eval t.csv --output o --teacher no-weights"
FINETUNE = "finetune --model no-weights --train t.csv --output o"
ABLATE = "ablate --shapes-only bert-base --output o"
SCORE = "score c.csv --bundle bundle --output o"
PREPARE = "prepare c.csv --bundle bundle --output o"
COST = "cost c.csv --bundle bundle"
CALIBRATE = "cost --calibrate --profile-out p.json --bundle bundle"
SCALE = "scale c.csv --bundle bundle --output o"
BENCH = "bench c.csv --bundle bundle"
NO_CORPUS = "bench --bundle bundle"
PROFILE = "bench --profile-out p.json"
DRAW = "bench --from-json bad.json --plot x.svg"
STORAGE = "--storage-options '{}'"
READING = ("--text-column x", "--shard-seconds 9", "--skip-unreadable-files", "--binary-text")
TEXT_FILES = (
    *("--encoding latin-1", "--csv-delimiter ';'", "--csv-quote none", "--csv-escape '\\'"),
    "--max-row-bytes 99",
)
TRAINING = (
    *("--learning-rate 1e-4", "--batch-rows 9", "--seed 1", "--temperature 3", "--transfer t.csv"),
    *("--hard-weight 0", "--hidden-weight 0", "--attention-weight 1"),
)
PRUNING = (
    *("--prune-budget latency", "--prune-multiple-of 8", "--prune-rounds 2", "--prune-epochs 1"),
    "--prune-without-labels",
)
SEARCHING = (*("--max-hours 2", "--plot x.svg", "--usd-per-hour 1", "--instance-type c7i.4xlarge"),)
POOLING = ("--pool-how max", "--pool-before-layer 0")
DROPPING = ("--token-epochs 1", "--token-soft-start 0.5", "--min-token-agreement 90")
CASCADE = ("--cascade-with bundle", "--cascade-drop 1")
COLUMNS = (
    *("--text-column x", "--text-pair-column x", "--choice-columns a,b", "--label-column x"),
    *("--csv-delimiter ';'", "--csv-quote none", "--csv-escape '\\'"),
)
PEERS = (
    *("--peer-rows 9", "--peer-env e", "--min-seconds 9", "--label-column y"),
    *("--peer-train c.parquet", "--static-bundle b"),
)
ACTORS = (
    *("--num-actors 1", "--num-nodes 1", "--cores-per-actor 1", "--oversubscribe", "--address a:1"),
    *("--timeout-s 9", "--usd-per-hour 1", "--keep-columns id", "--shard-seconds 9"),
    *("--max-bad-rows 3", "--instance-type c7i.4xlarge"),
)
SIMULATED = (
    *("--actors-per-node 4", "--interruptions-per-hour 1", "--request-s 0.02"),
    "--requests-per-second 9",
)
LABELED = ("--superglue BoolQ", "--label-map bad.json", "--encoding latin-1", "--max-row-bytes 99")
# The whole of `cost` that is about a corpus.
COSTED = (
    *("--text-column x", "--text-pair-column x", "--skip-unreadable-files", "--max-bad-rows 3"),
    *("--binary-text", "--sample 0.1", "--seed 1", "--rows 1e9", "--discount 5", "--spot"),
    *("--reserved", "--top 3", "--profile empty", "--deadline 1h", "--budget 3"),
    *("--write-cluster w", "--prices p.csv", *TEXT_FILES),
)

# Command lines with the flags that do nothing there, each alone.
IDLE = {
    SCORE: (
        *("--oversubscribe", STORAGE, "--binary-text", "--actors-per-gpu 2", "--audit 0.1"),
        *("--audit-bundle bundle", "--audit-min-agreement 95"),
    ),
    f"{SCORE} --on-bad-row fail": ("--max-bad-rows 3",),
    f"{SCORE} --address local": ("--num-nodes 2",),
    "score c.parquet --bundle bundle --output o": TEXT_FILES,
    "score c.jsonl --bundle bundle --output o": TEXT_FILES[1:4],
    "score shards --bundle bundle --output o": (*READING, "--text-pair-column x", *TEXT_FILES),
    PREPARE: ("--oversubscribe", STORAGE, "--binary-text"),
    f"{PREPARE} --address local": ("--num-nodes 2",),
    "prepare c.parquet --bundle bundle --output o": TEXT_FILES,
    SCALE: ("--oversubscribe", STORAGE, *SIMULATED, "--binary-text"),
    f"{SCALE} --address local": ("--num-nodes 2",),
    "scale c.parquet --bundle bundle --output o": TEXT_FILES,
    COST: (
        *("--max-instances 3", "--startup-s 9", "--interruptions-per-hour 1", "--confidence 0.9"),
        *(STORAGE, "--binary-text", "--audit 0.1", "--audit-bundle bundle"),
    ),
    f"{COST} --deadline 1h": ("--interruptions-per-hour 1",),
    f"{COST} --spot": ("--discount 5",),
    f"{COST} --deadline 1h --reserved": ("--discount 5",),
    "cost c.parquet --bundle bundle": TEXT_FILES,
    CALIBRATE: COSTED,
    f"{COMPRESS} --student-layers 2": (
        *("--transfer-rows 9", "--transfer-text-column x", "--transfer-text-pair-column x"),
        *("--transfer-seed 1", "--transfer-curve"),
    ),
    COMPRESS: (
        STORAGE,
        "--epochs 2",
        "--keep-gelu",
        *TRAINING,
        *PRUNING,
        *SEARCHING,
        *POOLING,
        *DROPPING,
        *CASCADE,
    ),
    f"{COMPRESS} --search --max-accuracy-drop 1 --cascade": ("--cascade-drop 1",),
    f"{COMPRESS} --keep-tokens 0.5": ("--epochs 2", "--min-token-agreement 90"),
    f"{COMPRESS} --keep-tokens auto --token-epochs 0": (*TRAINING[:-1], "--token-soft-start 0.5"),
    f"{COMPRESS} --prune-heads 0.5": ("--epochs 2", "--keep-gelu", "--prune-multiple-of 8"),
    f"{COMPRESS} --prune-ffn 0.5 --prune-epochs 0": TRAINING,
    f"{COMPRESS} --student-layers 2 --hard-weight 1": ("--temperature 3",),
    f"{COMPRESS} --precision float32": (
        *("--min-int8-agreement 50", "--select t.csv", "--select-share 0.2"),
    ),
    f"{COMPRESS} --select t.csv": ("--select-share 0.2",),
    f"{FINETUNE} --select t.csv": ("--select-share 0.2",),
    f"{COMPRESS} --student-layers 0": (
        *("--keep-gelu", "--hidden-weight 1", "--attention-weight 1", "--min-int8-agreement 50"),
    ),
    f"{COMPRESS} --superglue BoolQ": COLUMNS,
    "compress --train t.csv --eval t.csv --output o --teacher vectors": (
        *("--label-column x", "--label-map bad.json", "--label-names a,b"),
    ),
    "compress --train t.csv --eval t.csv --output o --teacher vectors --prune-ffn 0.5": (
        *("--temperature 3", "--prune-without-labels"),
    ),
    f"{FINETUNE} --superglue BoolQ": COLUMNS,
    "compress --train c.parquet --eval c.parquet --output o --teacher no-weights": TEXT_FILES,
    "finetune --model no-weights --train c.parquet --output o": TEXT_FILES,
    f"{ABLATE} --eval c.parquet": TEXT_FILES,
    "bench c.parquet --bundle bundle": TEXT_FILES,
    f"{FINETUNE} --choice-columns a,b": ("--task regression",),
    ABLATE: ("--tokenizer t.json", *COLUMNS, *LABELED),
    "ablate --teacher no-weights --eval t.csv --output o": (
        "--tokenizer t.json",
        "--keep-tokens 0.5",
    ),
    "ablate --paper-table 4 --teacher no-weights --bundle bundle --eval t.csv --output o": (
        *("--student no-weights", "--shapes-only bert-base", "--keep-tokens 0.5"),
        *("--tokenizer t.json", "--max-length 9", *SEARCHING[2:]),
    ),
    f"{ABLATE} --eval t.csv --superglue BoolQ": COLUMNS,
    BENCH: (*PEERS, "--oversubscribe", "--binary-text"),
    f"{BENCH} --address local": ("--num-nodes 2",),
    f"{BENCH} --teacher no-weights --peers ray-tuned": (
        *("--peer-env e", "--peer-train c.parquet", "--static-bundle b"),
    ),
    f"{BENCH} --parts engines": ("--output o", "--peers all", *ACTORS),
    f"{BENCH} --parts job": ("--teacher no-weights",),
    f"{BENCH} --parts operators": ("--repeats 2",),
    NO_CORPUS: (
        *("--output o", "--peers all", "--sample-rows 9", "--limit 9", *READING, *TEXT_FILES),
        *ACTORS,
    ),
    PROFILE: (
        *("--output o", "--engine auto", "--teacher no-weights", "--parts engines", "--repeats 2"),
        *("--peers all", "--peer-rows 9", "--peer-env e", "--sample-rows 9", "--limit 9"),
        *("--plot x.svg", *READING, *TEXT_FILES, *ACTORS[:-1]),
    ),
    DRAW: (
        *("--bundle bundle", "--output o", "--engine auto", "--teacher no-weights"),
        *("--shape student", "--parts job", "--peers all", *PEERS),
        *("--sample-rows 9", "--repeats 2", "--profile-out p.json", "--limit 9", *ACTORS),
    ),
    "demo --print-bundle": (
        *("--output o", "--limit 9", "--num-actors 1", "--write-corpus w", "--json", "--quiet"),
        *("--usd-per-hour 1", "--instance-type c7i.4xlarge", "--verbose", "--log-level info"),
    ),
    "demo --write-corpus w": (
        *("--output o", "--limit 9", "--num-actors 1", "--usd-per-hour 1"),
        "--instance-type c7i.4xlarge",
    ),
    f"{SCORE} --device cuda": ("--engine auto",),
    "bench-gpu --bundle bundle --profile-out p.json": (
        *("--text-column x", "--limit 9", "--skip-unreadable-files", "--binary-text"),
        *("--shapes student", "--job-corpus c.csv", "--job-shape student", "--sample-rows 9"),
        *("--repeats 2", "--usd-per-hour 1"),
    ),
    "bench-gpu c.csv --teacher no-weights": (
        *("--job-shape student", "--usd-per-hour 1", "--instance-type c7i.4xlarge"),
    ),
    "status mine": (STORAGE,),
    "report mine": (STORAGE,),
    "inspect bundle": (STORAGE,),
    "launch --cloud local --output o --head-ip a": (
        *("--instance-type c7i.4xlarge", "--head-type same", "--region r", "--num-workers 2"),
        *("--on-demand", "--image x", "--cpus-per-worker 2"),
    ),
    "launch --cloud kubernetes --output o --image x": (
        *("--head-ip a", "--worker-ips b", "--ssh-user u", "--ssh-key k"),
        *("--instance-type c7i.4xlarge", "--head-type same", "--region r"),
    ),
}
# Flags that do something whatever else is given; those of `OutputSettings` are everybody's.
EVERYWHERE = {"--config", "--json", "--quiet", "--verbose", "--log-level"}
WORKING = {
    "score": (
        "--bundle --output --keep-columns --limit --max-bad-rows --cores-per-actor --engine "
        "--num-actors --address --timeout-s --usd-per-hour --instance-type --max-batch-tokens "
        "--on-bad-row --energy --quote --dry-run --device --precision --columns --label-column"
    ),
    "prepare": (
        "--bundle --output --text-column --text-pair-column --keep-columns --limit --shard-seconds "
        "--skip-unreadable-files --max-bad-rows --cores-per-actor --num-actors --address "
        "--timeout-s --usd-per-hour --instance-type --device"
    ),
    "scale": (
        "--bundle --output --text-column --text-pair-column --keep-columns --limit --shard-seconds "
        "--skip-unreadable-files --max-bad-rows --cores-per-actor --engine --num-actors --address "
        "--timeout-s --usd-per-hour --instance-type --repeats --load-slots --load-actors --simulate"
    ),
    "cost": "--bundle --calibrate --fit-run --profile-out --instance-type",  # refused by themselves
    "cost refresh": "--cloud --region --output --prices --endpoint",
    "compress": (
        "--teacher --train --eval --output --work --max-length --eval-limit --max-accuracy-drop "
        "--search --superglue --label-map --student --student-layers "
        "--student-width --prune-heads --prune-ffn --precision --trim-vocabulary --pool-tokens "
        "--keep-tokens --cascade --select"
    ),
    "finetune": (
        "--model --train --eval --output --superglue --label-map --epochs --learning-rate "
        "--batch-rows --seed --max-length --num-layers --label-names --limit --select"
    ),
    "ablate": (
        "--teacher --student --bundle --output --eval --max-length --limit --baseline-rows "
        "--repeats --shapes-only --paper-table"
    ),
    "bench": "--plot --from-json",
    "bench-gpu": "--teacher --bundle --profile-out",
    "demo": "--print-bundle",
    "status": "--watch",
    "report": "",
    "launch": "--cloud --output --bundle",
    "inspect": "",
    "label": "--names",
}
CASES = [(line, flag) for line, flags in IDLE.items() for flag in flags]


@pytest.fixture(scope="module")
def desk(tmp_path_factory, bundle, pair_bundle):
    """The directory in which the commands run, with prepared shards and a model of vectors."""
    path = tmp_path_factory.mktemp("desk")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        write_desk(bundle, pair_bundle)
        (path / "c.jsonl").write_text('{"text": "a cat"}\n')
        (path / "vectors").mkdir()
        (path / "vectors" / "modules.json").write_text("[]")
        prepare_shards(bundle)
        yield path


def prepare_shards(bundle):
    """Prepared shards, made in this process."""
    from fastformers.cluster.execution.job import open_prepare_job
    from fastformers.cluster.execution.local import connect_here
    from fastformers.cluster.execution.run import run_job
    from fastformers.cluster.settings import ActorSettings, CorpusSettings

    job = open_prepare_job("c.parquet", bundle.path, "shards", CorpusSettings())
    run_job(job, ActorSettings(), connect_here)


@pytest.mark.parametrize(("line", "flag"), CASES)
def test_a_flag_that_does_nothing_is_refused_by_name_before_any_work(
    desk, capsys, monkeypatch, line, flag
):
    for module in ("compression.compress", "models.finetune", "ablation.from_shapes"):
        monkeypatch.setitem(sys.modules, f"fastformers.{module}", None)
    assert main(shlex.split(f"{line} {flag}")) == 2
    captured = capsys.readouterr()
    *_, error = captured.err.splitlines()
    name = flag.split()[0]
    refusals = ("does nothing here: ", "says nothing for --cloud ")
    assert re.match(f"error: {name} ({'|'.join(refusals)})", error), error
    assert error.endswith("leave it out")
    assert captured.out == ""


@pytest.mark.parametrize("command", [*COMMANDS, "cost refresh"])
def test_every_flag_of_every_command_is_in_a_table(command, capsys):
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    usage = capsys.readouterr().out
    flags = set(re.findall(r"^  (?:-\w, )?(--[a-z][a-z0-9-]+)", usage, re.MULTILINE)) - {"--help"}
    idle = {flag.split()[0] for line, flag in CASES if line.split()[0] == command}
    working = set(WORKING.get(command, "").split())
    assert flags - EVERYWHERE - idle - working == set()
    assert working <= flags
