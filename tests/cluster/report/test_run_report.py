import dataclasses
import json
from types import NoneType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastformers.cluster.report.run_report import (
    FORMAT_VERSION,
    PREPARATION_KEYS,
    SUMMARY_KEYS,
    RunReport,
)
from fastformers.errors import InputError

KEYS = {
    *("format_version", "rows", "unique_rows", "tokens", "unique_tokens", "rows_per_second"),
    *("tokens_per_second", "padding_efficiency", "wall_s", "setup_s", "usd_per_hour", "price"),
    *("price_is_estimate", "usd_total", "usd_per_million", "dead_letters", "resumed_shards"),
    *("resumed_rows", "shards", "retries", "skipped_files", "num_actors", "num_machines", "cores"),
    *("kinds", "agreement", "nodes", "attempts", "tokens_over_time", "left_out", "unfit_values"),
    "audit",
    *("driver_cpu", "phase_s", "predicted_s", "peak_rss_bytes", "actors", "started_at", "bill"),
    *("other_types", "other_types_unknown", "energy", "lengths", "timeline", "bundle"),
    "cascade",
    *("sessions", "unrecorded_rows", "dead_letter_reasons", "quality", "quality_unknown"),
    "price_mismatches",
    *("corpus", "history", "early_quote"),
    "output",
}
NESTED_KEYS = {
    "phase_s": {"read", "tokenize", "infer", "audit", "write", "idle"},
    "bill": {"items", "total_usd", "duplicates_saved_usd", "prediction"},
    "tokens_over_time": {"bin_s", "groups"},
    "audit": {
        *("share", "bundle", "precision", "digest", "rows", "failed_rows", "measure", "agreement"),
        *("difference", "min_agreement", "core_s", "usd", "quality", "quality_unknown"),
    },
    "quality": {
        *("label_column", "read_as", "metric", "value", "low", "high", "macro_f1", "rows"),
        *("unlabeled", "labels", "confusion"),
    },
    "bundle": {
        "path",
        "precision",
        "digest",
        "max_batch_tokens",
        "profile_cpu",
        "engine",
        "labels",
    },
    "energy": {
        *("kwh", "cpu_kwh", "gpu_kwh", "memory_kwh", "co2_kg", "country", "cpu_basis"),
        *("gpu_basis", "covered_s", "source"),
    },
}
ENTRY_KEYS = {
    *("job", "name", "actor", "attempt", "lost", "start_s", "end_s", "busy_s", "infer_s"),
    *("rows", "tokens", "predicted_s", "rss_bytes"),
}
NODE_KEYS = {
    *("name", "device", "instance_type", "joined_s", "left_s", "actors", "shards", "rows"),
    *("rows_per_second", "usd_per_hour", "price", "usd", "left_because"),
}
KIND_KEYS = {
    *("device", "precision", "engine", "max_batch_tokens", "actors", "machines", "shards", "rows"),
    *("tokens", "share_of_tokens", "usd", "usd_per_million", "computing", "waiting", "gpu_busy"),
    "bound_by",
}
QUOTE_KEYS = {
    *("run", "at", "share", "actors", "usd", "usd_low", "usd_high", "hours", "hours_low"),
    *("hours_high", "ends_at", "ends_at_low", "ends_at_high"),
}
TYPE_KEYS = {
    *("instance_type", "usd", "usd_low", "usd_high", "wall_s", "basis", "scaled_from"),
    *("region", "as_of"),
}


def read(content):
    return RunReport.from_json(content, path="out/report.json", remedy="score it again")


@given(st.builds(RunReport))
def test_any_report_comes_back_as_it_was_written(report):
    """Compared as text, because a float that is not a number does not equal itself."""
    assert repr(read(json.loads(json.dumps(report.to_json())))) == repr(report)


def test_a_whole_report_comes_back_as_it_was_written(make_report):
    report = make_report()
    content = report.to_json()
    assert json.loads(json.dumps(content)) == content
    assert read(content) == report
    assert isinstance(hash(read(content).timeline), int)  # tuples of frozen values all the way


def test_the_file_has_the_documented_keys(make_report):
    """Whoever parses report.json relies on them: a change of one needs another format version."""
    content = make_report().to_json()
    assert set(content) == KEYS
    for name, keys in NESTED_KEYS.items():
        assert set(content[name]) == keys, name
    assert set(content["timeline"][0]) == ENTRY_KEYS
    assert set(content["nodes"][0]) == NODE_KEYS
    assert set(content["kinds"][0]) == KIND_KEYS
    assert set(content["other_types"][0]) == TYPE_KEYS
    assert set(content["bill"]["items"][0]) == {"heading", "what", "core_s", "usd"}
    assert set(content["bill"]["prediction"]) == {
        *("predicted_core_s", "measured_core_s", "error", "shard_error"),
    }
    assert set(next(iter(content["actors"].values()))) == {
        *("shards", "rows", "rows_per_second", "tokens_per_second", "busy_s", "peak_rss_bytes"),
    }
    assert set(content["history"][0]) == QUOTE_KEYS
    assert set(content["early_quote"]) == {
        *("source", "instance_type", "machines", "usd", "usd_low", "usd_high", "hours"),
    }
    assert content["lengths"]["8"] == [9000, 60_000, 62_000]
    assert content["format_version"] == FORMAT_VERSION == 6


def test_the_last_line_has_what_is_promised(make_report):
    report = make_report()
    content = report.to_json()
    assert report.summarize() == {
        **{key: content[key] for key in SUMMARY_KEYS},
        "num_sessions": 2,
        "quality": {"metric": "accuracy", "value": 0.85, "rows": 1000},
        "audit": content["audit"],
        "early_quote": content["early_quote"],
        "first_quote": content["history"][0],
        "last_quote": content["history"][-1],
    }
    prepared = report.summarize_preparation()
    assert prepared == {key: content[key] for key in PREPARATION_KEYS}
    assert set(prepared) == {
        *("rows", "unique_rows", "tokens", "shards", "wall_s", "usd_total", "phase_s", "output")
    }


def test_no_field_has_a_default():
    """A report says everything, or nothing would tell `not measured` from `forgotten`."""
    assert all(
        field.default is field.default_factory is dataclasses.MISSING
        for field in dataclasses.fields(RunReport)
    )


@pytest.mark.parametrize("content", [None, [], "text", 3])
def test_what_is_no_report_is_refused_by_name(content):
    with pytest.raises(InputError, match=r"^out/report\.json: is not a report of ours; score it"):
        read(content)


@pytest.mark.parametrize(
    ("version", "age"),
    [(None, "an older"), (1, "an older"), ("2", "an older"), (FORMAT_VERSION + 1, "a newer")],
)
def test_another_format_is_refused_by_name(make_report, version, age):
    content = {**make_report().to_json(), "format_version": version}
    with pytest.raises(InputError, match=rf"^out/report\.json: was written by {age} version .*;"):
        read(content)


def test_a_report_without_a_version_is_an_old_one(make_report):
    content = make_report().to_json()
    del content["format_version"]
    with pytest.raises(InputError, match=r"^out/report\.json: was written by an older version"):
        read(content)


def test_a_report_of_the_format_before_quotes_is_read_as_one_without_any(make_report):
    report = make_report()
    content = {**report.to_json(), "format_version": 5}
    for key in ("corpus", "history", "early_quote"):
        del content[key]
    assert read(content) == dataclasses.replace(report, corpus="", history=(), early_quote=None)
    assert read(content).summarize()["first_quote"] is None


def damage(content, place, value):
    """Change the value at a place; NoneType removes it."""
    *way, last = place
    for step in way:
        content = content[step]
    if value is NoneType:
        del content[last]
    else:
        content[last] = value


@pytest.mark.parametrize(
    ("place", "value", "what"),
    [
        (("rows",), "3", "rows is of type str, not int"),
        (("rows",), True, "rows is of type bool, not int"),
        (("wall_s",), None, "wall_s is of type NoneType, not float"),
        (("price",), NoneType, "price is missing"),
        (("color",), "blue", "color is unknown"),
        (("phase_s", "infer"), NoneType, r"phase_s\.infer is missing"),
        (("bill", "items", 1, "usd"), [], r"bill\.items\[1\]\.usd is of type list, not float"),
        (("bill", "prediction"), 7, r"bill\.prediction is of type int, not dict"),
        (("timeline",), {}, "timeline is of type dict, not list"),
        (("timeline", 2, "lost"), 0, r"timeline\[2\]\.lost is of type int, not bool"),
        (("lengths", "8"), [1, 2], r"lengths\.8 has 2 values, not 3"),
        (("actors",), [], "actors is of type list, not dict"),
        (("energy", "source"), None, r"energy\.source is of type NoneType, not str"),
    ],
)
def test_damage_is_named_with_its_place(make_report, place, value, what):
    content = json.loads(json.dumps(make_report().to_json()))
    damage(content, place, value)
    message = rf"^out/report\.json: damaged: {what}; score it again$"
    with pytest.raises(InputError, match=message):
        read(content)


def test_a_whole_number_is_a_number(make_report):
    content = {**make_report().to_json(), "wall_s": 12}
    assert read(content).wall_s == 12.0
    assert isinstance(read(content).wall_s, float)
