import json
from pathlib import Path

import pytest

from fastformers.jobs.benchmarks.parts import NotRun
from fastformers.jobs.benchmarks.peers import environments
from fastformers.jobs.benchmarks.peers.catalog import JOB_BASELINES, Environment
from fastformers.jobs.benchmarks.peers.environments import (
    TORCH_VERSION,
    open_environment,
    plan_steps,
)

SMALL = Environment(name="small", packages=("one", "two<3"), has_torch=False)
LARGE = Environment(name="large", packages=("three",))


@pytest.fixture
def steps(monkeypatch):
    """Run no installer; what would have been run, and what each step is to fail with."""
    run, failures = [], {}

    def fake(step):
        run.append(step)
        place = next(Path(word) for word in step if "/env" in word)
        if "venv" in step:
            (place / "bin").mkdir(parents=True)
            (place / "bin" / "python").touch()
        return failures.get(step[-1])

    monkeypatch.setattr(environments, "_run", fake)
    return run, failures


def test_an_environment_is_made_once_and_kept(steps, tmp_path):
    run, _ = steps
    said = []
    python = open_environment(SMALL, tmp_path / "env", said.append)
    assert python == tmp_path / "env" / "small" / "bin" / "python"
    assert said == [f"installing one, two<3 into {tmp_path}/env/small"]
    made = len(run)
    assert open_environment(SMALL, tmp_path / "env", said.append) == python
    assert (len(run), len(said)) == (made, 1)
    other = Environment(name="small", packages=("one", "two<4"), has_torch=False)
    (tmp_path / "env" / "small" / "old").touch()
    assert open_environment(other, tmp_path / "env", said.append) == python
    assert len(run) == 2 * made
    assert not (tmp_path / "env" / "small" / "old").exists()


def test_what_cannot_be_installed_is_a_reason_and_is_tried_again(steps, tmp_path):
    _, failures = steps
    failures["two<3"] = "ERROR: No matching distribution found for two<3"
    found = open_environment(SMALL, tmp_path / "env", print)
    assert found == NotRun(reason=f"cannot be installed: {failures.pop('two<3')}")
    assert isinstance(open_environment(SMALL, tmp_path / "env", print), Path)


def test_an_installer_that_was_killed_is_started_anew(steps, tmp_path, monkeypatch):
    def interrupted(step):
        (tmp_path / "env" / "small" / "half").mkdir(parents=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(environments, "_run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            open_environment(SMALL, tmp_path / "env", print)
    assert isinstance(open_environment(SMALL, tmp_path / "env", print), Path)
    assert [path.name for path in (tmp_path / "env").iterdir()] == ["small"]
    assert not (tmp_path / "env" / "small" / "half").exists()


def test_a_directory_that_is_somebody_s_own_is_kept(steps, tmp_path):
    """`--peer-env ~/src` where src/small is a checkout, or an environment made by hand."""
    run, _ = steps
    own = tmp_path / "env" / "small" / "pyvenv.cfg"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    found = open_environment(SMALL, tmp_path / "env", print)
    assert isinstance(found, NotRun)
    assert f"{own.parent} is no environment that was made here" in found.reason
    assert (own.read_text(), run) == ("mine", [])


@pytest.mark.parametrize("uv", [None, "/bin/uv"])
def test_pytorch_is_the_build_for_cpus_of_one_version(uv):
    """An open range would bring gigabytes of CUDA."""
    steps = plan_steps(LARGE, Path("/env/large"), uv=uv)
    pinned = f"torch=={TORCH_VERSION}+cpu"
    installs = [step for step in steps if "install" in step]
    assert all(pinned in step for step in installs)
    assert "three" in installs[-1]
    if uv is None:
        assert environments.TORCH_INDEX in installs[0]
        assert environments.TORCH_INDEX not in installs[1]  # its copies of others are not wanted
        assert "torchvision" in steps[-1]
        assert "uninstall" in steps[-1]
    else:
        assert installs[0][installs[0].index("--torch-backend") + 1] == "cpu"
    without = plan_steps(SMALL, Path("/env/small"), uv=uv)
    assert not any("torch" in word for step in without for word in step)


def test_an_installer_that_fails_gives_its_last_line(tmp_path):
    script = tmp_path / "installer"
    script.write_text("#!/bin/sh\necho collecting >&2\necho 'ERROR: no such package' >&2\nexit 1\n")
    script.chmod(0o755)
    assert environments._run([str(script)]) == "ERROR: no such package"
    script.write_text("#!/bin/sh\nexit 2\n")
    assert environments._run([str(script)]) == f"{script}: exit status 2"
    script.write_text("#!/bin/sh\necho fine\n")
    assert environments._run([str(script)]) is None


def test_every_environment_has_a_directory_of_its_own_and_reads_parquet():
    found = [job.environment for job in JOB_BASELINES.values() if job.environment]
    assert len({environment.name for environment in found}) == len(found) >= 4
    assert all("pyarrow" in environment.packages for environment in found)
    assert json.dumps([environment.name for environment in found])
