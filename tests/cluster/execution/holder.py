"""A run that holds an output, checks, and writes: `holder.py CORPUS BUNDLE OUTPUT`.

It counts what it writes since it last stood still for longer than others wait for its heartbeat.
"""

import signal
import sys
import time
from pathlib import Path

from fastformers.cluster.execution.claim import ClaimTimes, claimed
from fastformers.cluster.execution.job import open_score_job
from fastformers.cluster.settings import CorpusSettings
from fastformers.errors import ClaimedError

STALE_S = 1.5

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    corpus, bundle, output = sys.argv[1:]
    job = open_score_job(
        corpus,
        Path(bundle),
        output,
        CorpusSettings(),
        max_batch_tokens=256,
    )
    times = ClaimTimes(heartbeat_s=0.1, stale_s=STALE_S, warn_s=1.0, poll_s=0.05, answer_s=30.0)
    num_writes, before = 0, time.monotonic()
    try:
        with claimed(job, times=times) as claim:
            print("held", flush=True)
            while True:
                now = time.monotonic()
                if now - before > STALE_S:
                    num_writes = 0
                before = now
                claim.check()
                num_writes += 1
                time.sleep(0.01)
    except ClaimedError as error:
        print(error, file=sys.stderr)
        print(f"stopped after {num_writes} writes", flush=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
