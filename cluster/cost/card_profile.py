"""Seconds that a bundle's rows take on a GPU here, and tokens on its host's cores, as a profile.

    bundle + engine on a card + texts -> [card_profile] -> MachineProfile -> FILE -> costs of GPUs

Rows are measured in full batches, as jobs have nearly always on a GPU: its shards hold millions of
tokens. This module knows nothing of prices or corpora.
"""

import time
from collections.abc import Sequence

from fastformers.cluster.cost.machine_profile import MachineProfile, measure_host_tokenizing
from fastformers.cluster.cost.measured.machine import MeasuredMachine
from fastformers.inference.bundle import Bundle
from fastformers.inference.cost_profile import CostProfile
from fastformers.inference.cpu import read_processor
from fastformers.inference.engines.card_measures import (
    CardEngine,
    choose_budget,
    measure_card_budgets,
    measure_row_seconds,
)

# Reading and writing, over tokenizing: 0.5% of the inference of a 4 x 312 student on a Zen 5 core
# at 45,000 tokens a second, where a core tokenizes 900,000 (2026-11).
_OVERHEAD_OF_TOKENIZING = 0.1


def measure_card_profile(
    bundle: Bundle,
    engine: CardEngine,
    *,
    gpu_name: str,
    texts: Sequence[str],
    core_sets: Sequence[frozenset[int]],
    machine: MeasuredMachine,
    instance_type: str | None,
) -> MachineProfile:
    """Time a bundle's graph on a card, and its tokenizer on all cores of the machine at once.

    Args:
        bundle: Bundle to measure.
        engine: The bundle's graph for GPUs on a card that does nothing else.
        gpu_name: The card's name in price tables.
        texts: Texts to tokenize; some hundreds.
        core_sets: Logical CPUs of each tokenizing worker.
        machine: What this machine is.
        instance_type: The cloud's name of this machine, or None if it has none.
    """
    budget = choose_budget(measure_card_budgets(engine, max_length=bundle.max_length))
    lengths = bundle.cost_profile.lengths
    seconds = measure_row_seconds(engine, lengths=lengths, max_batch_tokens=budget)
    tokenize_s = measure_host_tokenizing(bundle, texts=texts, core_sets=core_sets)
    processor = read_processor()
    return MachineProfile(
        bundle_digest=bundle.digest,
        instance_type=instance_type,
        num_workers=1,
        cost=CostProfile(
            engine=engine.name,
            cpu_model=processor.model,
            cpu_generation=processor.generation,
            cpu_features=processor.features,
            max_batch_tokens=budget,
            lengths=lengths,
            seconds_per_row=seconds,
        ),
        tokenize_s_per_token=tokenize_s,
        overhead_share=_OVERHEAD_OF_TOKENIZING * tokenize_s * sum(lengths) / sum(seconds),
        origin="calibration",
        measured_at=time.strftime("%Y-%m-%d"),
        gpu_name=gpu_name,
        machine=machine,
    )
