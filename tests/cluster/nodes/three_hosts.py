"""A corpus scored by one host, and by three of which one is killed, one added and one bad.

    python -m tests.cluster.nodes.three_hosts CORPUS --work DIRECTORY [OPTIONS OF SCORE]

The hosts are Ray nodes of this machine with one CPU and one core each; the one that is added takes
the core of the one that is killed. The last line is one JSON object; the exit status is 0 if both
outputs are equal in every cell and the rest went as promised.
"""

import argparse
import json
import re
import sys
import time
from pathlib import Path

from fastformers.cache import CACHE_VARIABLE
from fastformers.inference.bundle import DEMO_BUNDLE
from tests.cluster.chaos.jobs import num_done
from tests.cluster.nodes.hosts import CORES, Hosts, Job
from tests.cluster.outputs import read_predictions


def joined(job):
    """Lines that say which actors a node has, one for each node that has joined."""
    return [line for line in job.lines if re.match(r"\d+ actors? x \d+ thread", line)]


def replace_host(hosts, job, goes):
    """Kill a node, add another when the job has noticed; returns what took how many seconds."""
    cores = [CORES[hosts.names.index(goes) % len(CORES)]]
    num_before, began = len(joined(job)), time.monotonic()
    hosts.remove(goes)
    job.wait_for_line("has left")
    seconds = {"noticed_s": time.monotonic() - began}
    hosts.add(cores, wait=False)
    began = time.monotonic()
    job.wait_until(lambda: len(joined(job)) > num_before, "a node that joins")
    return {**seconds, "used_s": time.monotonic() - began}


def score_on_three(corpus, work, options, *, kill_after):
    """The job, and the seconds of what happened to its nodes."""
    nowhere = work / "file"
    nowhere.write_text("")
    with (work / "cluster.log").open("wb") as log, Hosts(log) as hosts:
        goes, _ = hosts.add(), hosts.add()
        hosts.add(env_vars={CACHE_VARIABLE: str(nowhere)})
        with Job(hosts, corpus, work / "three", *options, bundle=DEMO_BUNDLE) as job:
            job.wait_for_shards(kill_after, timeout_s=3600)
            seconds = {"killed_after_shards": num_done(job.output)}
            seconds |= replace_host(hosts, job, goes)
            return job, {**job.succeed(timeout_s=3600), **seconds}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus")
    parser.add_argument("--work", type=Path, required=True, help="directory for both outputs")
    parser.add_argument("--kill-after", type=int, default=100, help="shards before the kill")
    parsed, options = parser.parse_known_args(arguments)
    parsed.work.mkdir(parents=True, exist_ok=True)
    with Job(None, parsed.corpus, parsed.work / "one", *options, bundle=DEMO_BUNDLE) as one:
        alone = one.succeed(timeout_s=3600)
    job, summary = score_on_three(parsed.corpus, parsed.work, options, kill_after=parsed.kill_after)
    print("\n".join(line for line in job.lines if line.startswith(("node", "no node"))))
    tables = read_predictions(parsed.work / "one"), read_predictions(job.output)
    names = ("rows", "shards", "wall_s", "killed_after_shards", "noticed_s", "used_s", "retries")
    nodes = [
        {name: node[name] for name in ("name", "joined_s", "left_s", "rows", "left_because")}
        for node in job.report["nodes"]
    ]
    shown = {name: summary[name] for name in names}
    shown |= {"is_equal": tables[0].equals(tables[1]), "one_host_s": alone["wall_s"]}
    print(json.dumps({**shown, "nodes": nodes}))
    num_named = sum("is left out" in line for line in job.lines)
    return 0 if shown["is_equal"] and num_named == 1 and summary["retries"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
