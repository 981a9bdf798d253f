"""`fastformers cost` from the command line: what it prints, and what it refuses in one line."""

import csv
import hashlib
import json
import shutil
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml

from fastformers.cluster.cost.machine_profile import (
    load_shipped_profiles,
    profile_of_bundle,
    reference_profile,
    write_profile,
)
from fastformers.cluster.pricing.prices import PRICE_TABLE, load_prices
from fastformers.inference.bundle import open_bundle
from fastformers.inference.scorer import Scorer
from fastformers.jobs import cost
from fastformers.jobs.console import calibrate
from fastformers.jobs.console.cli import main
from fastformers.jobs.cost import parse


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.parquet"
    texts = ["the cat sat on the mat", "a dog ran", "good film", ""] * 500
    pyarrow.parquet.write_table(pa.table({"text": texts}), path, row_group_size=300)
    return path


BORNE = ("--max-bad-rows", "30%")  # a quarter of the rows are empty


@pytest.fixture
def run_cost(capsys, corpus, bundle):
    """Run `fastformers cost`; returns its last line, parsed, and what it showed."""

    def run(*options):
        arguments = ["cost", str(corpus), "--bundle", str(bundle.path), *BORNE]
        status = main([*arguments, *map(str, options)])
        captured = capsys.readouterr()
        assert status == 0, captured.err
        return json.loads(captured.out.splitlines()[-1]), captured.err

    return run


@pytest.fixture
def refused(capsys):
    """Run `fastformers cost` and return the one line it is refused with."""

    def run(*options):
        borne = () if {"refresh", "--bundle"} & {options[0]} else BORNE  # without a corpus
        status = main(["cost", *map(str, options), *borne])
        captured = capsys.readouterr()
        assert status == 2, captured.err
        assert captured.out == ""
        return captured.err.splitlines()[-1]

    return run


def test_the_last_line_has_every_type(run_cost):
    shown, text = run_cost()
    assert shown["rows"] == 2000
    assert shown["bad_share"] == 0.25
    assert {i["instance_type"] for i in shown["instances"]} == set(load_prices())
    costs = [(i["needs_gpu_graph"], i["usd_total"]) for i in shown["instances"]]
    assert costs == sorted(costs)
    for instance in shown["instances"]:
        assert {"instance_type", "usd_per_million", "wall_s", "basis"} <= set(instance)
        assert instance["usd_per_million"] == pytest.approx(instance["usd_total"] / 2000 * 1e6)
        published = instance["gpu_count"] > 0
        assert instance["basis"] == ("scaled (published)" if published else "scaled")
    assert shown["plan"] is None
    assert shown["instances"][0]["instance_type"] in text
    assert "modeled" in text


def test_a_corpus_of_one_text_has_a_cost(capsys, bundle, tmp_path, write_rows):
    path = write_rows(tmp_path / "a.parquet", [{"text": "a cat"}] * 60_000)
    assert main(["cost", str(path), "--bundle", str(bundle.path)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["repeat_share"]["value"] > 0.999
    assert shown["infer_core_s"]["value"] > 0


def test_a_sample_that_says_little_has_a_wide_price(capsys, bundle, tmp_path, write_rows):
    """Two of 80 files have nearly all of the work; most samples find one of them."""
    long = [{"text": f"{'the cat sat on the mat ' * 9} {number}"} for number in range(300)]
    for number in range(80):
        rows = long if number % 40 == 7 else [{"text": "a"}] * 300
        write_rows(tmp_path / "corpus" / f"{number:02d}.parquet", rows)
    assert main(["cost", str(tmp_path / "corpus"), "--bundle", str(bundle.path)]) == 0
    captured = capsys.readouterr()
    cheapest = json.loads(captured.out)["instances"][0]
    assert cheapest["usd_low"] == 0
    assert f" 0 to x{cheapest['usd_high'] / cheapest['usd_total']:.2f} " in captured.err


def test_an_audit_is_part_of_the_price(run_cost, bundle_factory, tmp_path):
    auditor = bundle_factory(tmp_path / "auditor", num_layers=1)
    without, _ = run_cost()
    config = tmp_path / "audit.yaml"
    config.write_text(f"audit: 0.5\naudit-bundle: {auditor.path}\n")
    shown, text = run_cost("--config", config)
    assert (shown["audit"]["share"], shown["audit"]["bundle"]) == (0.5, str(auditor.path))
    before = {one["instance_type"]: one["usd_total"] for one in without["instances"]}
    for one in shown["instances"]:
        assert one["usd_total"] - one["audit_usd"] == pytest.approx(before[one["instance_type"]])
    assert "50% of the rows by " in text


def test_an_audit_bundle_that_does_not_fit_is_refused(refused, corpus, bundle, pair_bundle):
    line = refused(
        corpus, "--bundle", bundle.path, "--audit", "0.1", "--audit-bundle", pair_bundle.path
    )
    assert line.startswith(f"error: --audit-bundle {pair_bundle.path}: reads pairs of texts, ")


def test_a_discount_and_spot_change_prices(run_cost):
    usd = {}
    for options in ((), ("--discount", 50), ("--spot",)):
        shown, text = run_cost(*options)
        hourly = {i["instance_type"]: i["usd_per_hour"] for i in shown["instances"]}
        usd[options] = hourly["Standard_F16s_v2"]
    assert usd[("--discount", 50)] == usd[()] / 2
    assert usd[("--spot",)] == 0.07447
    assert "stale price" in text
    assert "estimated price" in text
    assert "no spot price" in text


def test_a_profile_measured_on_a_type_is_told_apart(run_cost, bundle, tmp_path):
    profile = replace(profile_of_bundle(bundle), instance_type="c8a.4xlarge", num_workers=16)
    write_profile(tmp_path / "profiles" / "a.json", profile)
    seconds = tuple(1.2 * s for s in profile.cost.seconds_per_row)
    slower = replace(
        profile,
        cost=replace(profile.cost, seconds_per_row=seconds),
        tokenize_s_per_token=1.2 * profile.tokenize_s_per_token,
    )
    write_profile(tmp_path / "profiles" / "b.json", slower)
    strangers = replace(reference_profile(), instance_type="c7i.4xlarge", num_workers=8)
    write_profile(tmp_path / "strangers.json", strangers)
    shown, text = run_cost(
        *("--profile", tmp_path / "profiles", "--profile", tmp_path / "strangers.json")
    )
    basis = {i["instance_type"]: i["basis"] for i in shown["instances"]}
    assert [name for name, how in basis.items() if how == "measured"] == ["c8a.4xlarge"]
    (c8a,) = [i for i in shown["instances"] if i["instance_type"] == "c8a.4xlarge"]
    assert c8a["num_profiles"] == 2 and 1.2 < c8a["error_factor"] < 1.3
    assert "several profiles: c8a.4xlarge 2 (x/÷ 1.2" in text
    assert "profiles that do not count" not in text
    machines = {one["machine"]: one for one in shown["predicted_and_measured"]}
    assert list(machines)[:2] == ["c8a.4xlarge", "c7i.4xlarge"]
    assert len(machines) == 2 + len(load_shipped_profiles())
    theirs = machines["c7i.4xlarge"]
    assert theirs["built_in_bundle"] and not machines["c8a.4xlarge"]["built_in_bundle"]
    assert theirs["measured_over_predicted_cost"] == pytest.approx(
        theirs["predicted_tokens_per_s"] / theirs["measured_tokens_per_s"]
    )
    rules = {one["rule"]: one["machines"] for one in shown["error_factors"]}
    assert sum(rules.values()) >= 2
    assert "Predicted and measured" in text
    assert "error factors learned: " in text


def test_a_profile_measured_on_a_busy_machine_is_called_rough(run_cost, bundle, tmp_path):
    profile = profile_of_bundle(bundle)
    rough = replace(profile, cost=replace(profile.cost, waiting_share=0.4), origin="calibration")
    write_profile(tmp_path / "profiles" / "a.json", rough)
    _, text = run_cost("--profile", tmp_path / "profiles")
    assert f"rough: measured on a busy machine (calibration on {profile.cost.cpu_model})" in text
    assert "rough" not in run_cost()[1]


def test_a_plan_and_a_cluster_file_come_out(run_cost, tmp_path):
    path, opened = tmp_path / "launch" / "cluster.yaml", tmp_path / "opened"
    path.parent.mkdir()
    path.write_text("older")
    opened.hardlink_to(path)  # who reads the older file meanwhile keeps it whole
    shown, text = run_cost("--rows", "1e9", "--deadline", "6h", "--write-cluster", path.parent)
    plan = shown["plan"]
    assert shown["rows"] == 1e9
    assert plan["wall_s"] < plan["confident_wall_s"] <= 6 * 3600
    assert plan["margin_s"] == 6 * 3600 - plan["confident_wall_s"]
    assert (plan["confidence"], plan["hold_chance"] >= 0.95) == (0.95, True)
    assert "holds: runs that keep it" in text
    gpus = {i["instance_type"] for i in shown["instances"] if i["gpu_count"]}
    planned = {plan["instance_type"], *(a["instance_type"] for a in plan["alternatives"])}
    assert not planned & gpus
    config = yaml.safe_load(path.read_text())
    assert config["max_workers"] == plan["num_instances"] - 1
    assert config["available_node_types"]["head"]["resources"]["CPU"] > 0  # it scores, as planned
    assert f"next: ray up {path}" in text
    assert {file.suffix for file in path.parent.iterdir()} >= {".whl", ".yaml"}
    assert opened.read_text() == "older"
    spot, text = run_cost("--rows", "1e9", "--deadline", "6h", "--spot")
    assert spot["plan"]["usd_total"] < plan["usd_total"]
    assert spot["plan"]["interruptions_per_hour"] == 0.05
    half, _ = run_cost("--rows", "1e11", "--deadline", "6h", "--confidence", "0.5")
    most, _ = run_cost("--rows", "1e11", "--deadline", "6h", "--confidence", "0.99")
    assert half["plan"]["num_instances"] < most["plan"]["num_instances"]
    assert "--interruptions-per-hour" in text


def test_gpus_are_planned_with_the_machines_that_tokenize_for_them(
    capsys, monkeypatch, corpus, two_graphs, tmp_path
):
    own = profile_of_bundle(two_graphs)
    seconds = tuple(2e-8 * length for length in own.cost.lengths)  # tokenizing takes 50 times that
    fast = replace(own.cost, seconds_per_row=seconds, seconds_alone=())
    l4 = replace(own, cost=fast, gpu_name="L4-24GB", instance_type="g6.2xlarge")
    write_profile(tmp_path / "profiles" / "l4.json", replace(l4, origin="calibration"))
    table, header = tmp_path / "prices.csv", PRICE_TABLE.read_text().splitlines()[0]
    kept = (",g6.2xlarge,", ",c7a.4xlarge,", ",c6i.4xlarge,")
    rows = [row for row in PRICE_TABLE.read_text().splitlines() if any(k in row for k in kept)]
    # Processors that are not known cannot be costed; that they tokenize follows from the clock.
    rows = [row.replace(",genoa,", ",,").replace(",ice-lake,", ",,") for row in rows]
    table.write_text("\n".join([header, *rows]))
    written = []
    monkeypatch.setattr(
        cost, "write_launch_files", lambda path, cluster, **_: written.append(cluster) or path
    )
    arguments = ["cost", corpus, "--bundle", two_graphs.path, *BORNE, "--rows", "1e11"]
    options = ["--prices", table, "--profile", tmp_path / "profiles", "--deadline", "10h"]
    launch = ["--write-cluster", tmp_path / "launch"]
    assert main([*map(str, [*arguments, *options, *launch])]) == 0
    out, text = capsys.readouterr()
    plan = json.loads(out.splitlines()[-1])["plan"]
    assert (plan["instance_type"], plan["device"]) == ("g6.2xlarge", "cuda")
    assert plan["helper_type"] == "c7a.4xlarge"  # cheaper for its clock than c6i.4xlarge
    (row,) = (line for line in text.splitlines() if line.startswith("g6.2xlarge +"))
    assert row.rstrip().endswith("measured")
    assert "so many c7a.4xlarge tokenize for each machine" in text
    assert "score with --device cuda" in text
    [cluster] = written
    assert cluster.helper.instance_type == "c7a.4xlarge"
    assert cluster.num_helpers == plan["num_helpers"] > 0
    assert cluster.num_workers == plan["num_instances"] - 1


def test_bundles_are_compared(run_cost, bundle_factory, tmp_path):
    other = bundle_factory(tmp_path / "deep", num_layers=4)
    shown, text = run_cost("--bundle", other.path)
    assert [cost["bundle"] for cost in shown["others"]] == [str(other.path)]
    assert shown["accuracy"] == 0.5
    assert "Bundles" in text


def test_this_machine_is_calibrated_to_a_file(capsys, monkeypatch, bundle, tmp_path):
    monkeypatch.setattr(calibrate, "find_spec", lambda name: None)  # matrix products take 3 s
    path = tmp_path / "profiles" / "here.json"
    options = ("--calibrate", "--profile-out", path)
    assert main(["cost", "--bundle", str(bundle.path), *map(str, options)]) == 0
    assert json.loads(capsys.readouterr().out)["profile"] == str(path)
    profile = json.loads(path.read_text())
    assert (profile["origin"], profile["bundle_digest"]) == ("calibration", bundle.digest)


def test_a_run_is_learned_from(run_cost, bundle, make_report, tmp_path):
    used = replace(make_report().bundle, digest=bundle.digest)
    report = make_report(bundle=used, predicted_s=40.0, resumed_rows=0)  # of 120 measured
    (tmp_path / "out" / "__run__").mkdir(parents=True)
    (tmp_path / "out" / "__run__" / "report.json").write_text(json.dumps(report.to_json()))
    usual, _ = run_cost()
    fitted, _ = run_cost("--fit-run", tmp_path / "out")
    ratio = fitted["infer_core_s"]["value"] / usual["infer_core_s"]["value"]
    assert ratio == pytest.approx(3)
    assert fitted["profiles"][0]["origin"] == "run"


def test_a_cluster_file_makes_its_directory_and_takes_the_bundle_along(run_cost, bundle, tmp_path):
    path = tmp_path / "clusters" / "cheap"
    run_cost("--rows", "1e9", "--deadline", "6h", "--write-cluster", path)
    config = yaml.safe_load((path / "cluster.yaml").read_text())
    assert str(bundle.path) in config["file_mounts"].values()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"format_version": None}, "was written by an older version"),
        ({"rows": "many"}, "damaged: rows is of type str, not int"),
        ({"resumed_rows": 3}, "was resumed"),
    ],
)
def test_a_report_that_cannot_be_learned_from_is_refused(
    refused, corpus, bundle, make_report, tmp_path, change, what
):
    used = replace(make_report().bundle, digest=bundle.digest)
    report = make_report(bundle=used, resumed_rows=0).to_json()
    (tmp_path / "__run__").mkdir()
    (tmp_path / "__run__" / "report.json").write_text(json.dumps({**report, **change}))
    line = refused(corpus, "--bundle", bundle.path, "--fit-run", tmp_path)
    assert f"{tmp_path}/__run__/report.json: {what}" in line


def write_table(path, **changes):
    with PRICE_TABLE.open(newline="") as file:
        row = next(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*row, *(name for name in changes if name not in row)])
        writer.writeheader()
        writer.writerow(row)
        writer.writerow({**row, "instance_type": "mine", **changes})
    return path


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"usd_per_hour_on_demand": ""}, "column usd_per_hour_on_demand: is empty"),
        ({"usd_per_hour_on_demand": "-1"}, "column usd_per_hour_on_demand: -1 is not usable"),
        ({"currency": "XYZ"}, "column currency: 'XYZ' has no known rate"),
        ({"instance_type": "c5.4xlarge"}, "c5.4xlarge is on line 2 already"),
    ],
)
def test_a_bad_price_row_is_named(refused, corpus, bundle, tmp_path, changes, what):
    path = write_table(tmp_path / "mine.csv", **changes)
    line = refused(corpus, "--bundle", bundle.path, "--prices", path)
    assert f"{path}: line 3" in line
    assert what in line


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--sample", 0.01), "too small for --sample 0.01: 20 rows"),
        (("--rows", 0), "--rows 0: give at least 1"),
        (("--discount", 100), "--discount 100"),
        (("--deadline", "1s"), "no cluster makes --deadline 1 s"),
        (("--rows", "1e15", "--deadline", "1h"), "the nearest allowed is 100 x"),
        (("--budget", "0.0001"), "the nearest allowed is 1 x"),
        (("--reserved",), "no reserved price"),
        (("--text-column", "body"), "'body'"),
        (("--top", 0), "--top 0"),
        (("--write-cluster", "x"), "add --deadline or --budget"),
        (("--profile-out", "x.json"), "add --calibrate or --fit-run"),
        (("--instance-type", "c8a.4xlarge"), "measured here; add --calibrate or --fit-run"),
        (("--fit-run", "nowhere"), "nowhere/__run__/report.json: is not a report of ours"),
        (("--profile", "nowhere"), "nowhere: cannot be read: No such file or directory"),
    ],
)
def test_questions_without_an_answer_are_refused(refused, corpus, bundle, options, what):
    assert what in refused(corpus, "--bundle", bundle.path, *options)


def test_a_corpus_whose_bad_rows_would_end_a_run_is_refused(capsys, corpus, bundle):
    assert main(["cost", str(corpus), "--bundle", str(bundle.path)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"{corpus}: 500 of 2,000 rows sampled hold no text" in line
    assert "more than --max-bad-rows 1% allows; check --text-column" in line


def test_zero_rows_are_refused(refused, bundle, tmp_path):
    path = tmp_path / "e.parquet"
    pyarrow.parquet.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    assert "the corpus is empty" in refused(path, "--bundle", bundle.path)


def test_a_profile_of_another_bundle_or_format_is_refused(
    refused, corpus, bundle, pair_bundle, tmp_path
):
    path = tmp_path / "profiles" / "a.json"
    write_profile(path, profile_of_bundle(pair_bundle))
    options = (corpus, "--bundle", bundle.path, "--profile", path)
    assert "a.json: profile of another bundle" in refused(*options)
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 99}))
    assert "a.json: profile format 99" in refused(*options)


def test_a_machine_measured_in_part_is_no_measured_type(refused, bundle, tmp_path):
    options = ("--bundle", bundle.path, "--calibrate", "--profile-out", tmp_path / "a.json")
    line = refused(*options, "--instance-type", "Standard_F72s_v2")
    assert "--instance-type Standard_F72s_v2 has 36 physical cores" in line
    assert not (tmp_path / "a.json").exists()
    assert "did you mean" in refused(*options, "--instance-type", "Standard_F72s_v22")


def test_a_bundle_without_its_size_scores_and_is_not_costed(refused, corpus, bundle, tmp_path):
    """Bundles of earlier versions do not say how much arithmetic they do."""
    path = tmp_path / "old"
    shutil.copytree(bundle.path, path)
    fields = json.loads((path / "bundle.json").read_text())
    version, _ = fields.pop("format_version"), fields.pop("digest")
    del fields["multiply_adds_per_token"], fields["width"]
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    fields["digest"] = hashlib.sha256(canonical.encode()).hexdigest()
    (path / "bundle.json").write_text(json.dumps({"format_version": version, **fields}))

    assert open_bundle(path).digest == bundle.digest
    assert Scorer(path).score(["the cat"]).labels == Scorer(bundle).score(["the cat"]).labels
    line = refused(corpus, "--bundle", path)
    assert f"{path}: was written before" in line
    assert "write it again with compress" in line


def test_nothing_to_do_is_said(refused, bundle):
    assert "give a CORPUS" in refused("--bundle", bundle.path)


def test_a_price_list_out_of_reach_is_one_line(refused, tmp_path):
    line = refused(
        *("refresh", "--cloud", "azure", "--region", "eastus"),
        *("--output", tmp_path / "p.csv", "--endpoint", "http://127.0.0.1:9"),
    )
    assert "the price list of azure cannot be read" in line
    assert not (tmp_path / "p.csv").exists()


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        *(("--deadline", text) for text in ("soon", "6", "", "90minutes", "90mim", "h", "1m1h")),
        *(("--deadline", text) for text in ("-1h", "nanh", "1h 30m", "1h1h", "1.h", "\u0661h")),
        ("--rows", "1.5"),
    ],
)
def test_times_and_numbers_are_checked(capsys, flag, text):
    with pytest.raises(SystemExit) as stopped:
        main(["cost", "x", "--bundle", "b", f"{flag}={text}"])
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert f"argument {flag}: {text!r} is not a" in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("45s", 45),
        ("90m", 5400),
        ("90min", 5400),
        ("1.5h", 5400),
        (".5h", 1800),
        ("6h", 21_600),
        ("2d", 172_800),
        ("1h30m", 5400),
        ("1d2h3m4.5s", 93_784.5),
    ],
)
def test_a_time_is_written_with_its_units(text, seconds):
    assert parse(["x", "--bundle", "b", "--deadline", text]).deadline == seconds
