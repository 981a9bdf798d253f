"""What `cost` said of a job is found in its last line, for the type that the run is priced as."""

import json

import pytest

from fastformers.cluster.records.quotes import EarlyQuote
from fastformers.cluster.report.forecasts.early_quote import read_early_quote
from fastformers.errors import InputError

ROWS = [
    {"instance_type": name, "usd_total": usd, "usd_low": usd / 2, "usd_high": 2 * usd, "wall_s": s}
    for name, usd, s in (("c7i.large", 3.0, 7200.0), ("c7a.large", 2.0, 3600.0))
]
PLAN = {
    "instance_type": "c7i.large",
    "num_instances": 3,
    "num_helpers": 1,
    "usd_total": 3.5,
    "wall_s": 1800.0,
}
COST = {"bundle": "b/", "bundle_digest": "d1", "instances": ROWS, "others": [], "plan": None}


@pytest.fixture
def read(tmp_path):
    def read(content, instance_type=None, digests=("d1",), corpus="c", log=None):
        path = tmp_path / "cost.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        said = [] if log is None else log
        return read_early_quote(str(path), digests, instance_type, corpus=corpus, log=said.append)

    return read


def test_a_row_is_for_one_machine_of_its_type(read, tmp_path):
    assert read(COST, "c7a.large") == EarlyQuote(
        source=str(tmp_path / "cost.json"),
        instance_type="c7a.large",
        machines=1,
        usd=2.0,
        usd_low=1.0,
        usd_high=4.0,
        hours=1.0,
    )


def test_a_plan_is_for_all_of_its_machines(read):
    for instance_type in (None, "c7i.large"):
        found = read({**COST, "plan": PLAN}, instance_type)
        assert (found.instance_type, found.machines, found.usd, found.hours) == (
            *("c7i.large", 4, 3.5),
            0.5,
        )
        assert found.usd_low is None
    assert read({**COST, "plan": PLAN}, "c7a.large").usd == 2.0


def test_the_only_row_needs_no_type(read):
    assert read({**COST, "instances": ROWS[:1]}).instance_type == "c7i.large"


def test_of_several_bundles_the_run_s_is_quoted(read):
    other = {"bundle": "c/", "bundle_digest": "d2", "instances": ROWS[1:]}
    assert read({**COST, "others": [other], "plan": PLAN}, digests=("d0", "d2")).usd == 2.0


def test_lines_before_the_last_and_indented_json_are_read(read):
    assert read(f"noise\n{json.dumps(COST)}\n", "c7a.large").usd == 2.0
    assert read(json.dumps(COST, indent=2), "c7a.large").usd == 2.0


@pytest.mark.parametrize(
    ("content", "instance_type", "reason"),
    [
        ("", None, "is not what fastformers cost prints last"),
        ("[]", None, "is not what fastformers cost prints last"),
        ({**COST, "instances": [{}]}, None, "is not what fastformers cost prints last"),
        (COST, None, "quotes 2 instance types; give the --instance-type"),
        (COST, "m7i.large", "has no instance type m7i.large"),
        ({**COST, "bundle_digest": "d9"}, "c7a.large", r"quotes another bundle \(b/\)"),
    ],
)
def test_what_is_no_quote_is_refused_by_name(read, content, instance_type, reason):
    with pytest.raises(InputError, match=rf"^--quote .*cost\.json: {reason}"):
        read(content, instance_type)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"--quote .*none: No such file"):
        read_early_quote(str(tmp_path / "none"), ("d1",), None, corpus="c", log=print)


@pytest.mark.parametrize(
    ("quoted", "corpus", "is_said"),
    [
        ("s3://bucket/wiki", "s3://bucket/wiki/", False),
        ("reviews/", "./reviews", False),
        (None, "reviews", False),  # of an earlier version
        ("s3://bucket/wiki", "s3://bucket/news", True),
        ("reviews/part", "reviews", True),
    ],
)
def test_a_quote_of_another_corpus_is_taken_and_that_is_said(read, quoted, corpus, is_said):
    said = []
    content = COST if quoted is None else {**COST, "corpus": quoted}
    assert read(content, "c7a.large", corpus=corpus, log=said).usd == 2.0
    assert [f"quotes another corpus, {quoted};" in line for line in said] == [True] * is_said
