"""Every kind of mistake gets one clear line and exit status 2, before anything is started."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from fastformers.jobs.console.cli import main
from tests.jobs.odd.desk import write_desk

COMPRESS = "compress --train t.csv --eval t.csv --output o"
FINETUNE = "finetune --model no-weights --train t.csv"
ABLATE = "ablate --shapes-only bert-base --eval t.csv"
SCORE = "score c.csv --bundle bundle --output o"
COST = "cost c.csv --bundle bundle"
SCALE = "scale c.csv --bundle bundle --output o"
BENCH = "bench c.csv --bundle bundle"
LAUNCH = "launch --cloud aws --output o --instance-type c7i.4xlarge"
HOSTS = "launch --cloud local --output o"
PODS = "launch --cloud kubernetes --output o"
LONG = "x" * 300

# What is refused, and parts of the line that says why.
MISTAKES = {
    # Corpora that are not there, or none.
    "score none.parquet --bundle bundle --output o": ["none.parquet: no such file"],
    "score '' --bundle bundle --output o": ["a path is empty"],
    "score empty --bundle bundle --output o": ["empty: no .parquet, .jsonl"],
    "score 'b*.csv' --bundle bundle --output o": ["b*.csv: no .parquet"],
    "score file --bundle bundle --output o": ["file: expected .parquet"],
    "score bundle --bundle bundle --output o": ["bundle: was written by fastformers"],
    "score no-rows.parquet --bundle bundle --output o": ["the corpus is empty"],
    "score half --bundle bundle --output o": ["b.parquet: cannot be read", "--skip-unreadable"],
    f"score {LONG}.csv --bundle bundle --output o": [LONG],
    "score s3://key:SECRET@bucket/c --bundle bundle --output o": ["s3://***@bucket/c"],
    "score 's3://b/c?secret_key=SECRET' --bundle bundle --output o": ["s3://b/c?***"],
    "score foo://bucket/c --bundle bundle --output o": ["foo://bucket/c: unknown scheme"],
    "score https://a.org/c.csv --bundle bundle --output o": ["https://a.org/c.csv: unknown"],
    "score s3:// --bundle bundle --output o": ["s3://: names no bucket"],
    "score file:///none/c.csv --bundle bundle --output o": ["file:///none/c.csv: no such file"],
    "prepare none --bundle bundle --output o": ["none: no such file"],
    "cost none --bundle bundle": ["none: no such file"],
    "scale none --bundle bundle --output o": ["none: no such file"],
    "bench none --bundle bundle": ["none: no such file"],
    # Columns.
    f"{SCORE} --text-column body": ["no column 'body' (--text-column", "it has id, text"],
    f"{SCORE} --text-column ''": ["no column ''"],
    f"{SCORE} --keep-columns rank": ["no column 'rank' (--keep-columns)", "it has id, text"],
    f"{SCORE} --keep-columns id,id": ["--keep-columns names the column 'id' twice"],
    f"{SCORE} --text-pair-column id": ["leave --text-pair-column out"],
    "score c.parquet --bundle bundle --output o --text-column stars": ["'stars' holds int64"],
    "score c.csv --bundle pairs --output o": ["pairs", "--text-pair-column"],
    "score c.csv --bundle pairs --output o --text-pair-column x": ["no column 'x'"],
    f"{COST} --text-column body": ["no column 'body'"],
    # Bundles.
    "score c.csv --bundle none --output o": ["none: not a bundle"],
    "score c.csv --bundle empty --output o": ["empty: not a bundle"],
    "score c.csv --bundle file --output o": ["file: not a bundle"],
    "score c.csv --bundle changed --output o": ["model.onnx differs from its SHA-256"],
    "score c.csv --bundle incomplete --output o": ["tokenizer.json is missing"],
    "score c.csv --bundle newer --output o": ["bundle format 99", "upgrade"],
    "score c.csv --bundle s3://key:SECRET@bucket/b --output o": ["s3://***@bucket/b"],
    "cost c.csv --bundle none": ["none: not a bundle"],
    "bench c.csv": ["--bundle", "--shape"],
    "bench --shape student --teacher no-weights --profile-out p.json": [
        "--profile-out",
        "--bundle",
    ],
    "bench --profile-out p.json --instance-type c9z.large": ["unknown instance type 'c9z.large'"],
    "bench --profile-out file/p.json": ["file"],
    "bench c.csv --shape student --bundle bundle": ["--bundle", "--shape", "not both"],
    f"{LAUNCH} --bundle empty": ["empty: not a bundle"],
    # Outputs.
    "score c.csv --bundle bundle --output mine": ["mine", "holds no run of ours"],
    "score c.csv --bundle bundle --output file": ["file: cannot be written"],
    "score c.csv --bundle bundle --output file/o": ["file/o: cannot be written"],
    "score c.csv --bundle bundle --output ''": ["a path is empty"],
    "score c.csv --bundle bundle --output other": ["corpus files", "changed since"],
    "score c.csv --bundle bundle --output s3://key:SECRET@b/o": ["s3://***@b/o"],
    "score corpus --bundle bundle --output corpus": ["corpus", "choose another"],
    "prepare c.csv --bundle bundle --output mine": ["mine", "holds no run of ours"],
    "scale c.csv --bundle bundle --output mine": ["mine", "holds no scaling test of ours"],
    "launch --cloud aws --instance-type c7i.4xlarge --output file": ["file: a file"],
    "launch --cloud aws --instance-type c7i.4xlarge --output mine": ["mine: holds something else"],
    f"{COST} --deadline 1h --write-cluster mine": ["mine: holds something else"],
    # Values of flags.
    f"{SCORE} --limit 0": ["--limit 0: give at least 1"],
    f"{SCORE} --max-batch-tokens 0": ["--max-batch-tokens 0"],
    f"{SCORE} --shard-seconds 0": ["--shard-seconds 0: give more than 0"],
    f"{SCORE} --shard-seconds inf": ["--shard-seconds inf: give more than 0"],
    f"{SCORE} --timeout-s -1": ["--timeout-s -1"],
    f"{SCORE} --num-actors 0": ["--num-actors 0: give at least 1"],
    f"{SCORE} --num-nodes 0": ["--num-nodes 0: give at least 1"],
    f"{SCORE} --cores-per-actor 0": ["--cores-per-actor 0: give at least 1"],
    f"{SCORE} --cores-per-actor 100000 --dry-run": ["--cores-per-actor 100000 needs"],
    f"{SCORE} --usd-per-hour nan": ["--usd-per-hour", "nan"],
    f"{SCORE} --usd-per-hour 1 --instance-type c7i.4xlarge": ["--usd-per-hour", "--instance-type"],
    f"{SCORE} --instance-type c7i.4xlage": ["did you mean c7i.4xlarge", "--usd-per-hour"],
    f"{SCORE} --energy XXX": ["--energy XXX", "USA"],
    f"{SCORE} --address ray://head:10001": ["--address ray://head:10001: ", "ray job submit"],
    f"{SCORE} --address http://head:8265": ["--address http://head:8265: ", "ray job submit"],
    f"{SCORE} --max-bad-rows many": ["--max-bad-rows many: give a number of rows, or a share"],
    f"{SCORE} --max-bad-rows 200%": ["--max-bad-rows 200%"],
    f"{SCORE} --max-bad-rows -1": ["--max-bad-rows -1"],
    f"{SCORE} --encoding nope": ["--encoding nope: no encoding of text"],
    f"{SCORE} --encoding base64": ["--encoding base64: no encoding of text"],
    f"{SCORE} --max-row-bytes 0": ["--max-row-bytes 0"],
    f"{SCORE} --csv-delimiter ab": ["--csv-delimiter 'ab': give one character"],
    f"{SCORE} --csv-delimiter '\"'": ["--csv-delimiter, --csv-quote: give different"],
    f"{SCORE} --csv-delimiter ';'": ["no column 'text'", "it has id,text"],
    f"{SCORE} --csv-quote ,": ["--csv-quote ','", "name --csv-delimiter"],
    f"{SCORE} --csv-escape ,": ["--csv-escape ','", "name --csv-delimiter"],
    f"{COST} --sample 0": ["--sample 0"],
    f"{COST} --sample nan": ["--sample nan"],
    f"{COST} --rows -1": ["--rows -1: give at least 1"],
    f"{COST} --seed -1": ["--seed -1: give at least 0"],
    f"{COST} --discount 200": ["--discount 200"],
    f"{COST} --top 0": ["--top 0"],
    f"{COST} --deadline 0h": ["--deadline 0"],
    f"{COST} --budget nan": ["--budget nan"],
    f"{COST} --deadline 1h --startup-s -1": ["--startup-s -1: give at least 0"],
    f"{COST} --deadline 1h --spot --interruptions-per-hour inf": ["--interruptions-per-hour inf"],
    f"{COST} --deadline 1h --max-instances 0": ["--max-instances 0"],
    f"{COST} --write-cluster o": ["--write-cluster", "--deadline or --budget"],
    f"{COST} --instance-type c7i.4xlarge": ["--instance-type", "--calibrate or --fit-run"],
    f"{COST} --profile-out p.json": ["--profile-out", "--calibrate or --fit-run"],
    f"{COST} --prices none.csv": ["none.csv: cannot be read"],
    f"{COST} --prices c.csv": ["c.csv: line 1: missing column", "usd_per_hour_on_demand"],
    f"{COST} --profile empty": ["--profile empty: no .json file"],
    f"{COST} --fit-run empty": ["report.json: is not a report of ours"],
    f"{COST} --fit-run broken": ["report.json: is not JSON"],
    f"{SCALE} --repeats 0": ["--repeats 0"],
    f"{SCALE} --simulate 0": ["--simulate 0"],
    f"{SCALE} --simulate 9 --requests-per-second inf": [
        "--requests-per-second inf: give more than 0"
    ],
    f"{SCALE} --load-slots 0": ["--load-slots"],
    f"{BENCH} --parts nope": ["--parts nope: not one of engines"],
    f"{BENCH} --peers nope": ["--peers nope: not one of ray-tuned"],
    f"{BENCH} --peers all": ["--peers: give --teacher"],
    f"{BENCH} --repeats 0": ["--repeats 0"],
    f"{BENCH} --plot x.pdf": ["--plot x.pdf", ".svg or .png"],
    "bench --from-json none.json --plot x.svg": ["none.json: No such file"],
    "bench --from-json bad.json --plot x.svg": ["bad.json: is not the last line"],
    "bench --from-json bad.json": ["--from-json: give --plot"],
    # Clusters.
    "launch --cloud aws --output o": ["--instance-type: name"],
    "launch --cloud aws --output o --instance-type c7i.4xlage": ["did you mean c7i.4xlarge"],
    "launch --cloud aws --output o --instance-type n2-highcpu-16": ["is a type of gcp"],
    f"{LAUNCH} --num-workers 0": ["--num-workers 0"],
    f"{LAUNCH} --image x": ["--image says nothing for --cloud aws"],
    HOSTS: ["--head-ip: name the host"],
    f"{HOSTS} --head-ip 'a b'": ["--head-ip 'a b': give the address of a host"],
    f"{HOSTS} --head-ip a --worker-ips b,a": ["name a host twice"],
    PODS: ["--image: name the image"],
    f"{PODS} --image 'a b'": ["--image 'a b'"],
    f"{PODS} --image x --cpus-per-worker 0": ["--cpus-per-worker 0"],
    # Runs.
    "status none": ["none: no run was ever there"],
    "status file": ["file: no run was ever there"],
    "status broken": ["run.json: is not JSON"],
    "status s3://key:SECRET@bucket/o": ["s3://***@bucket/o"],
    "report none": ["none: holds no finished run"],
    "report broken": ["is not JSON"],
    # Recipes.
    f"{COMPRESS} --teacher t --search": ["--max-accuracy-drop"],
    f"{COMPRESS} --teacher t --search --max-accuracy-drop 1 --prune-ffn 0.5": ["--prune-ffn 0.5"],
    f"{COMPRESS} --teacher t --search --max-accuracy-drop 1 --student-layers 4": [
        "--student-layers 4"
    ],
    f"{COMPRESS} --teacher t --search --max-accuracy-drop 1 --precision float16": [
        "--precision float16"
    ],
    f"{COMPRESS} --teacher t --max-accuracy-drop -1": ["--max-accuracy-drop -1"],
    f"{COMPRESS} --teacher t --student a --student-layers 4": ["--student", "--student-layers"],
    f"{COMPRESS} --teacher t --student-layers -1": ["--student-layers -1: give at least 0"],
    f"{COMPRESS} --teacher t --epochs 0": ["--epochs 0: give more than 0"],
    f"{COMPRESS} --teacher t --epochs inf": ["--epochs inf: give more than 0"],
    f"{COMPRESS} --teacher t --student-layers 2 --learning-rate inf": ["--learning-rate inf"],
    f"{COMPRESS} --teacher t --student-layers 2 --temperature nan": ["--temperature nan"],
    f"{COMPRESS} --teacher t --student-layers 2 --hard-weight 2": ["--hard-weight 2"],
    f"{COMPRESS} --teacher t --student-layers 2 --hidden-weight inf": ["--hidden-weight inf"],
    f"{COMPRESS} --teacher t --prune-heads 1.5": ["--prune-heads 1.5"],
    f"{COMPRESS} --teacher t --prune-rounds 0": ["--prune-rounds 0"],
    f"{COMPRESS} --teacher t --min-int8-agreement 101": ["--min-int8-agreement 101"],
    f"{COMPRESS} --teacher t --trim-vocabulary 0": ["--trim-vocabulary 0"],
    f"{COMPRESS} --teacher t --max-length 0": ["--max-length 0"],
    f"{COMPRESS} --teacher t --eval-limit 0": ["--eval-limit 0"],
    f"{COMPRESS} --teacher t --seed -1": ["--seed -1"],
    f"{FINETUNE} --output o --limit 0": ["--limit 0: give at least 1"],
    f"{FINETUNE} --output o --num-layers 0": ["--num-layers 0"],
    f"{FINETUNE} --output o --max-length 0": ["--max-length 0"],
    f"{FINETUNE} --output o --batch-rows -1": ["--batch-rows -1"],
    f"{ABLATE} --output o --teacher t": ["--shapes-only", "leave out --teacher"],
    # Models and labeled files.
    f"{COMPRESS} --teacher no-weights --choice-columns a,b --text-pair-column c": [
        "--choice-columns and --text-pair-column"
    ],
    f"{COMPRESS} --teacher none": ["none: no config.json"],
    f"{COMPRESS} --teacher empty": ["empty: no config.json"],
    f"{COMPRESS} --teacher bundle": ["bundle: no config.json"],
    f"{COMPRESS} --teacher no-json": ["no-json/config.json: not JSON"],
    f"{COMPRESS} --teacher list": ["list/config.json: a JSON list"],
    f"{COMPRESS} --teacher pointer": ["pointer/model.safetensors: a Git LFS pointer"],
    f"{COMPRESS} --teacher no-weights --text-column body": ["t.csv: no column 'body'"],
    f"{COMPRESS} --teacher no-weights --label-column body": ["t.csv: no column 'body'"],
    f"{COMPRESS} --teacher no-weights --label-map none.json": ["--label-map none.json"],
    f"{COMPRESS} --teacher no-weights --label-map bad.json": ["--label-map bad.json"],
    f"{COMPRESS} --teacher no-weights --label-map list.json": ["--label-map list.json", "object"],
    f"{COMPRESS} --teacher no-weights --superglue nope": ["--superglue nope: not one of BoolQ"],
    f"{COMPRESS} --teacher no-weights --superglue BoolQ": ["t.csv", "'question'", "BoolQ"],
    f"{COMPRESS} --teacher no-weights --student-layers 2 --transfer none.csv": [
        "none.csv: no such file"
    ],
    f"{COMPRESS} --teacher no-weights --student-layers 2 --transfer t.csv --transfer-rows 9": [
        "t.csv: no text that is in no labeled file, too"
    ],
    f"{COMPRESS} --teacher no-weights --student-layers 2 --transfer u://b/c": ["unknown scheme"],
    f"{COMPRESS} --teacher no-weights --student-layers 2 --transfer file:///none/c.csv": [
        "file:///none/c.csv: no such file"
    ],
    f"{COMPRESS} --teacher no-weights --transfer c.csv --transfer-curve --search "
    "--max-accuracy-drop 1": ["--transfer-curve: is of one recipe"],
    "compress --teacher no-weights --train none.csv --eval t.csv --output o": ["none.csv: no such"],
    "compress --teacher no-weights --train t.csv --eval none.csv --output o": ["none.csv: no such"],
    "compress --teacher no-weights --train t.csv --eval t.csv --output mine": ["--output mine"],
    "compress --teacher t --train t.csv --eval t.csv --output file": ["--output file"],
    f"{FINETUNE} --output mine": ["--output mine: holds something that finetune did not make"],
    f"{FINETUNE} --output no-weights": ["--output no-weights: is the encoder"],
    "finetune --model none --train t.csv --output o": ["none: no config.json"],
    "finetune --model no-weights --train one.csv --output o": ["one.csv: only one label ('yes')"],
    "finetune --model no-weights --train unlabeled.csv --output o": ["unlabeled.csv", "no label"],
}
# Mistakes that are found by the libraries that train.
TRAINING_MISTAKES = {
    f"{COMPRESS} --teacher unknown": ["unknown: architecture 'nope' is not one of bert"],
    f"{COMPRESS} --teacher no-weights": ["no-weights: cannot be read", "model.safetensors"],
    f"{FINETUNE} --output o": ["no-weights: cannot be read"],
    f"{FINETUNE} --output o --num-layers 99": ["--num-layers 99"],
    "finetune --model no-weights --train t.csv --output o --task regression": ["t.csv"],
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory, bundle, pair_bundle):
    """The directory in which all commands run; none of them may write anything there."""
    path = tmp_path_factory.mktemp("desk")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        write_desk(bundle, pair_bundle)
        yield path


def list_all(directory):
    return {(path, path.stat().st_mtime_ns) for path in directory.rglob("*")}


@pytest.fixture
def refused(capsys, desk):
    """Run a command and return the line that it is refused with, the last of its lines."""

    def run(line):
        before = list_all(desk)
        status = main(shlex.split(line))
        captured = capsys.readouterr()
        waits = re.compile(r".+, \d+ s")  # which a busy machine makes long enough to be said
        *said, error = [line for line in captured.err.splitlines() if not waits.fullmatch(line)]
        assert (status, captured.out) == (2, ""), captured.err
        written = list_all(desk) - before
        shutil.rmtree(desk / "o", ignore_errors=True)
        assert error.startswith("error: ")
        assert "SECRET" not in captured.err
        assert not written
        return said, error

    return run


@pytest.fixture
def without_torch(monkeypatch):
    """What trains is not there: a mistake that is found without it is refused all the same."""
    for module in ("compression.compress", "models.finetune", "ablation.from_models"):
        monkeypatch.setitem(sys.modules, f"fastformers.{module}", None)


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_refused_in_one_line_and_nothing_is_written(refused, without_torch, line):
    said, error = refused(line)
    assert [part for part in MISTAKES[line] if part not in error] == [], error
    assert said == [] or line.startswith("finetune"), said  # which says what labels mean


@pytest.mark.parametrize("line", TRAINING_MISTAKES)
def test_a_mistake_in_training_is_refused_before_anything_is_trained(refused, line):
    pytest.importorskip("transformers")
    said, error = refused(line)
    assert [part for part in TRAINING_MISTAKES[line] if part not in error] == [], error
    told = ("labels: ", "rows: ", "t.csv: has the texts of 8 of 8 rows of --eval")
    assert all(line.startswith(told) for line in said), said


def test_there_are_mistakes_of_every_command():
    lines = [*MISTAKES, *TRAINING_MISTAKES]
    commands = {line.split()[0] for line in lines}
    assert commands == {
        *("score", "prepare", "cost", "scale", "bench", "launch", "status", "report"),
        *("compress", "finetune", "ablate"),
    }


def test_only_what_has_changed_is_named(refused):
    _, error = refused("score c.csv --bundle bundle --output other")
    assert "corpus files" in error
    assert "max batch tokens" not in error


@pytest.mark.parametrize("command", ["score", "prepare"])
def test_a_relative_output_in_a_job_of_rays_job_server(refused, monkeypatch, command):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    _, error = refused(f"{command} c.csv --bundle bundle --output o")
    assert error.startswith("error: --output o: a job of Ray's job server runs in a directory")


def test_label_set_that_does_not_match_the_model(refused, save_teacher):
    save_teacher("teacher")
    Path("maybe.csv").write_text("text,label\n" + "a cat,yes\na dog,maybe\n" * 8)
    _, error = refused("compress --teacher teacher --train maybe.csv --eval maybe.csv --output o")
    assert "'maybe'" in error
    assert "no, yes" in error


USAGE = {
    "nope": "'nope'",
    "score c.csv": "--bundle, --output",
    f"{SCORE} --nope": "--nope",
    f"{SCORE} --limit 1.5": "--limit",
    f"{SCORE} --cores-per-actor x": "neither a number nor auto",
    f"{SCORE} --engine nope": "--engine",
    f"{SCORE} --storage-options '{{'": "--storage-options: give a JSON object",
    f"{SCORE} --storage-options @none.json": "none.json",
    f"{COST} --deadline 6": "write 90m, 6h, 2d",
    f"{COST} --spot --reserved": "--reserved: not allowed with argument --spot",
    "status mine --watch 0": "--watch",
}


@pytest.mark.parametrize("line", USAGE)
def test_arguments_that_are_none_end_in_one_line_behind_the_usage(capsys, desk, line):
    with pytest.raises(SystemExit) as ended:
        main(shlex.split(line))
    captured = capsys.readouterr()
    assert (ended.value.code, captured.out) == (2, "")
    assert captured.err.startswith("usage: fastformers")
    assert USAGE[line] in captured.err.splitlines()[-1]
