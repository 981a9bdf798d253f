"""What Ray's agent exports of two equal receipts and more: `exported_metrics.py RECEIPT`.

RECEIPT is JSON. The last line of stdout is a JSON list of our own samples: name, value of the label
`node`, those of its other labels by name, value of the sample. It is a process of its own because
its Ray has settings of its own.
"""

import json
import logging
import socket
import sys
import time
import urllib.request

import ray
from prometheus_client.parser import text_string_to_metric_families

from fastformers.cluster.nodes.metrics import COUNTERS, HISTOGRAMS, RunMetrics
from fastformers.cluster.scheduling.nodes import Ended, NodeReport
from fastformers.cluster.scheduling.progress import MachineKind, Progress
from fastformers.cluster.scheduling.work import Finished, Lost, Ticket
from fastformers.cluster.shards.receipts import Receipt

PROGRESS = Progress(
    elapsed_s=60.0,
    num_done=2,
    num_known=7,
    num_rows=200,
    num_tokens=10000,
    num_errors=4,
    num_retries=1,
    predicted_done_s=5.0,
    predicted_left_s=12.5,
    num_slices_left=3,
    machine_s={MachineKind(): 60.0},
    num_nodes=3,
    num_actors=3,
)
OWN_LABELS = {"phase", "state", "le"}
REPORT_AT_ONCE = {"metrics_report_interval_ms": 1000}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def record(receipt):
    done = Finished(ticket=Ticket(1), result=receipt, seconds=2.5)
    lost = Lost(ticket=Ticket(2), reason="its actor died")
    ended = [
        Ended(outcome=outcome, slot="vm:0", start_s=0.0, end_s=2.5)
        for outcome in (done, done, lost)
    ]
    supervisor = RunMetrics("run-1", node="vm")
    report = NodeReport(ended=tuple(ended), doing={"infer": 2, "store": 1})
    supervisor.add_report(report, num_in_hand=5)
    supervisor.flush(force=True)
    driver = RunMetrics("run-1", node="driver")
    driver.set_progress(PROGRESS, usd=0.25)
    driver.flush(force=True)


def scrape(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except OSError:  # the agent starts after Ray
        return []
    return [
        sample
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("ray_fastformers_")
    ]


def main(receipt):
    port = free_port()
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        logging_level=logging.ERROR,
        log_to_driver=False,
        _metrics_export_port=port,
        _system_config=REPORT_AT_ONCE,
    )
    expected = {"ray_fastformers_usd"}  # of the gauges one is enough, they come together
    expected |= {f"ray_{name}_total" for name in COUNTERS}
    expected |= {f"ray_{name}_sum" for name in HISTOGRAMS}
    try:
        record(receipt)
        deadline = time.monotonic() + 60.0
        samples = []
        while not expected <= {sample.name for sample in samples}:
            assert time.monotonic() < deadline, samples
            time.sleep(0.2)
            samples = scrape(port)
    finally:
        ray.shutdown()
    seen = [
        [
            sample.name,
            sample.labels["node"],
            {key: sample.labels[key] for key in sorted(OWN_LABELS & set(sample.labels))},
            sample.value,
        ]
        for sample in samples
        if sample.labels["run"] == "run-1"
    ]
    print(json.dumps(seen))


if __name__ == "__main__":
    main(Receipt(**json.loads(sys.argv[1])))
