"""`ray up`, `ray submit` and `ray job submit` for real, where this machine can be two hosts."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = ("ip", "sshd", "ssh-keygen", "rsync", "unshare", "taskset", "python3.11")
MISSING = [tool for tool in TOOLS if shutil.which(tool, path="/usr/sbin:/usr/bin:/bin") is None]


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(1800)
@pytest.mark.skipif(bool(MISSING) or os.getuid() != 0, reason="root, iproute2 and sshd are needed")
def test_two_hosts_score_what_one_does(tmp_path):
    script = Path(__file__).with_name("two_hosts.py")
    done = subprocess.run(
        [sys.executable, script, "--wheelhouse", tmp_path / "wheels"],
        env={**os.environ, "PYTHONPATH": str(script.parents[3])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "all went as promised"
