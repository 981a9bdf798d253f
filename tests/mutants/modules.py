"""The modules that decide, and the tests that must notice a mistake in each.

The tests of `a/b/c.py` are `tests/a/b/test_c.py`; the table names those that come after them, or
stand in for them where there is no such file. They need no Ray, and train for seconds at most.
"""

from pathlib import Path

from tests.sources import ROOT

_CORPUS = tuple(
    f"tests/cluster/corpus/test_{name}.py"
    for name in ("readers", "csv_files", "json_lines", "parquet", "text_lines", "slices", "reading")
)
_PLANNING = "tests/cluster/corpus/test_planning.py"
_DRIVER = tuple(
    f"tests/cluster/scheduling/test_{name}.py"
    for name in ("driver", "driver_ends", "driver_orders", "two_kinds")
)
_SUPERVISOR = tuple(
    f"tests/cluster/scheduling/test_supervisor{name}.py" for name in ("_steps", "_copies")
)
_RUN = ("tests/cluster/execution/test_run.py", "tests/cluster/execution/test_run_faults.py")
_ATTENTION = "tests/fastformers/export/layers/test_attention.py"
_SAMPLING = "tests/cluster/cost/test_sampling.py"

MODULES: dict[str, tuple[str, ...]] = {
    # queue
    "cluster/shards/shard_queue.py": (),
    "cluster/scheduling/backlog.py": _SUPERVISOR,
    # driver
    "cluster/scheduling/driver.py": _DRIVER[1:],
    "cluster/scheduling/supervisor.py": _SUPERVISOR,
    "cluster/scheduling/tail.py": _DRIVER,
    "cluster/scheduling/pace.py": _SUPERVISOR,
    "cluster/scheduling/node_books.py": _DRIVER,
    "cluster/scheduling/progress.py": _DRIVER,
    # run
    "cluster/execution/run.py": _RUN[1:],
    "cluster/execution/job.py": _RUN,
    "cluster/execution/journal.py": (*_RUN, "tests/cluster/execution/test_audited_run.py"),
    "cluster/execution/claim.py": ("tests/cluster/execution/test_claim_held.py",),
    "cluster/execution/core_split.py": (),
    "cluster/execution/topology.py": ("tests/cluster/execution/test_card_cores.py",),
    # shards
    "cluster/shards/layout.py": (),
    "cluster/shards/shard_set.py": (),
    "cluster/shards/receipts.py": ("tests/cluster/shards/test_slice_receipts.py",),
    "cluster/records/slice_table.py": ("tests/cluster/records/test_dead_letters.py",),
    "cluster/records/receipts_log.py": ("tests/cluster/execution/test_journal.py",),
    "cluster/records/tally.py": (
        "tests/cluster/report/test_bill.py",
        "tests/cluster/report/test_summary.py",
    ),
    # preparation
    "cluster/shards/preparation.py": ("tests/cluster/shards/test_slices_of_files.py",),
    # readers
    "fastformers/formats/readers.py": (*_CORPUS, _SAMPLING),
    "fastformers/formats/file_set.py": (
        *_CORPUS,
        _PLANNING,
        "tests/fastformers/formats/test_kept_columns.py",
    ),
    "fastformers/formats/parquet.py": (*_CORPUS, _SAMPLING),
    "fastformers/formats/row_groups.py": (
        "tests/fastformers/formats/test_parquet.py",
        *_CORPUS,
        _PLANNING,
    ),
    "fastformers/formats/csv_files.py": (*_CORPUS, _SAMPLING),
    "fastformers/formats/json_lines.py": (*_CORPUS, _SAMPLING, _PLANNING),
    "fastformers/formats/text_lines.py": (*_CORPUS, _SAMPLING),
    "fastformers/formats/windows.py": ("tests/fastformers/data/test_transfer_sample.py",),
    "fastformers/formats/kept_columns.py": _CORPUS,
    "fastformers/formats/column_types.py": _CORPUS,
    "fastformers/formats/records/record_stream.py": _CORPUS,
    "fastformers/formats/records/json_array.py": _CORPUS,
    "fastformers/formats/records/csv_records.py": (
        *_CORPUS,
        "tests/fastformers/formats/test_csv_files.py",
    ),
    "cluster/corpus/slices.py": (*_CORPUS, _PLANNING),
    "cluster/corpus/reading.py": _CORPUS,
    # bill
    "cluster/report/bill.py": ("tests/cluster/report/test_summary.py",),
    "cluster/report/summary.py": ("tests/cluster/report/test_bill.py",),
    # prices
    "cluster/pricing/prices.py": (),
    "cluster/pricing/machine_prices.py": (),
    "cluster/pricing/market.py": (),
    "cluster/pricing/hardware.py": ("tests/cluster/pricing/test_prices.py",),
    # plan
    "cluster/cost/sampling.py": (),
    "cluster/cost/workload.py": (),
    "cluster/cost/instances.py": (),
    "cluster/cost/planning/candidates.py": (),
    "cluster/cost/planning/offers.py": (),
    "cluster/cost/planning/outcome.py": (),
    "cluster/cost/planning/cluster_plan.py": (),
    "cluster/scheduling/forecast/blocks.py": (),
    "cluster/scheduling/forecast/time_left.py": (),
    "fastformers/data/splitting.py": (),
    "cluster/cost/profile_choice.py": (),
    "cluster/cost/type_speed.py": ("tests/cluster/cost/test_instances.py",),
    "cluster/cost/gpu_pace.py": ("tests/cluster/cost/test_instances.py",),
    "cluster/cost/run_elsewhere.py": (),
    # batching
    "fastformers/inference/batching.py": (),
    "fastformers/inference/cost_profile.py": (),
    # graph
    "fastformers/export/graph.py": (_ATTENTION,),
    "fastformers/export/layers/attention.py": (
        "tests/fastformers/export/test_graph.py",
        "tests/fastformers/export/layers/test_token_reduction.py",
    ),
    # quantization
    "fastformers/export/int8.py": (),
    "fastformers/export/calibration.py": (),
    # pruning
    "fastformers/compression/pruning/pruning_plan.py": (),
    "fastformers/compression/pruning/latency_plan.py": (),
    "fastformers/compression/pruning/loss_curves.py": (),
    "fastformers/compression/pruning/token_plan.py": (),
    "fastformers/compression/pruning/token_significance.py": (),
    "fastformers/compression/pruning/keep_tokens.py": (),
    "fastformers/compression/pruning/prune.py": (),
    # search order
    "fastformers/compression/search/order.py": (),
    "fastformers/compression/search/durations.py": (),
    # cascade
    "fastformers/inference/cascade/passes.py": (
        "tests/fastformers/inference/cascade/test_scoring.py",
    ),
    "fastformers/inference/cascade/margins.py": (),
    "fastformers/inference/cascade/record.py": (),
    "fastformers/compression/cascade/threshold.py": (),
    # audit
    "cluster/records/audit.py": (),
    "cluster/shards/audit_counts.py": (),
    "cluster/cost/audit_cost.py": (),
}


def find_tests(module: str) -> list[str]:
    """Test files that judge mutants of a module, its own first."""
    path = Path(module)
    own = Path("tests") / path.parent / f"test_{path.name}"
    named = [str(own)] if (ROOT / own).exists() else []
    return list(dict.fromkeys([*named, *MODULES[module]]))
