"""A few jobs under random faults; `make chaos` runs more."""

import json

import pytest

from tests.cluster.chaos.run import main


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(1800)
def test_jobs_under_random_faults_leave_what_an_undisturbed_one_leaves(tmp_path, capsys):
    status = main(["--faults", "8", "--seed", "1", "--work", str(tmp_path)])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["broken"] == {}
    assert report["total"] >= 8
    assert status == 0
