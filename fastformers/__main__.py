"""`python -m fastformers` is the command `fastformers`."""

import sys

from fastformers.jobs.console.cli import main

if __name__ == "__main__":
    sys.exit(main())
