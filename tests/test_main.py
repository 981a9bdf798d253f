"""`python -m fastformers` is the command, and says which version it is."""

import subprocess
import sys

import fastformers


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "fastformers", "--version"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.startswith(f"fastformers {fastformers.__version__} (Python 3.")
