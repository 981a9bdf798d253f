"""What a corpus costs with a bundle, on every instance type, and the cluster to rent for it.

    corpus + bundle + prices -> sample -> workload -> [bundle_cost] -> costs, offers -> plan

This is what `fastformers cost` calls, once for each bundle. Nothing is scored, written or rented,
and this module knows nothing of Ray.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from fastformers.cluster.corpus.slices import Corpus
from fastformers.cluster.cost.audit_cost import AuditCost, AuditPlan, add_audit
from fastformers.cluster.cost.instances import InstanceCost, InstanceCosts, estimate_instances
from fastformers.cluster.cost.machine_profile import MachineProfile, profile_of_bundle
from fastformers.cluster.cost.measured.checks import gain_experience
from fastformers.cluster.cost.measured.experience import Experience
from fastformers.cluster.cost.planning.cluster_plan import ClusterPlan
from fastformers.cluster.cost.planning.offers import HelperOffer, MachineOffer
from fastformers.cluster.cost.sampling import (
    DEFAULT_MAX_ROWS,
    DEFAULT_MIN_ROWS,
    DEFAULT_SHARE,
    CorpusSample,
    sample_corpus,
)
from fastformers.cluster.cost.type_speed import NO_EXPERIENCE, ModelTraits
from fastformers.cluster.cost.workload import Workload, estimate_workload
from fastformers.cluster.pricing.market import Market, find_market_price
from fastformers.cluster.pricing.prices import InstancePrice
from fastformers.cluster.settings import BadRowLimit, CorpusSettings
from fastformers.cluster.shards.layout import plan_num_shards
from fastformers.errors import InputError
from fastformers.inference.bundle import Bundle
from fastformers.options import check_at_least, check_option, option


@dataclass(frozen=True, kw_only=True)
class CostSettings:
    """How a corpus is sampled and machines are bought.

    Attributes:
        today: Date that tells whether a price is stale.
        market: How machines are bought. Its flags are made by hand: one for each market but the
            usual one.
    """

    today: date
    sample: float | None = field(
        default=None,
        metadata=option(
            "share of the rows to tokenize (at most 1), or their number "
            f"({DEFAULT_SHARE:g}; {DEFAULT_MIN_ROWS:,} to {DEFAULT_MAX_ROWS:,})",
            metavar="SHARE|N",
        ),
    )
    seed: int = field(default=0, metadata=option("seed of the sampled rows and of simulated plans"))
    rows: int | None = field(
        default=None,
        metadata=option("cost of this many rows, for example 1e9 (as many as the corpus has)"),
    )
    market: Market = "on-demand"
    discount_percent: float = field(
        default=0.0,
        metadata=option("percent off the on-demand price", name="discount", metavar="PERCENT"),
    )

    def __post_init__(self) -> None:
        is_discount = 0 <= self.discount_percent < 100
        check_option(self, "discount_percent", is_discount, "percent, at least 0 and below 100")
        check_at_least(self, 1, "rows")
        check_at_least(self, 0, "seed")


@dataclass(frozen=True, kw_only=True)
class BundleCost:
    """What a corpus costs with one bundle.

    Attributes:
        bundle: The bundle.
        workload: Workload of the corpus, by the first profile, which is of cores.
        instances: Costs by type, cheapest first.
        profiles: Profiles that the costs were scaled from: of cores, then of GPUs, of each the most
            trusted first.
        plans: Clusters that keep a deadline or a budget with the confidence asked for, each the
            best of its type, the best first; none where neither is.
        audit: The audit that is part of the costs, or None.
        experience: Machines that were measured, as predicted and as measured, and what the error
            factors learned from them.
    """

    bundle: Bundle
    workload: Workload
    instances: InstanceCosts
    profiles: tuple[MachineProfile, ...]
    plans: tuple[ClusterPlan, ...] = ()
    audit: AuditCost | None = None
    experience: Experience = NO_EXPERIENCE


def sample_bundle_corpus(
    uri: str,
    corpus: Corpus,
    bundle: Bundle,
    corpus_settings: CorpusSettings,
    settings: CostSettings,
) -> CorpusSample:
    """Sample a corpus that was opened for a bundle, with the bundle's tokenizer.

    Args:
        uri: The corpus as the user named it, for messages.
        corpus: The corpus.
        bundle: The bundle.
        corpus_settings: Which part of the corpus is read.
        settings: How it is sampled.

    Raises:
        FastformersError: The bundle or the corpus cannot be used, or is too small to sample.
    """
    ModelTraits.of_bundle(bundle)  # before the corpus is read, which takes longer
    sample = _sample(bundle, corpus, settings)
    _check_bad_rows(uri, sample, corpus_settings.bad_row_limit)
    return sample


def estimate_cost(
    bundle: Bundle,
    sample: CorpusSample,
    *,
    profiles: Sequence[MachineProfile],
    prices: Mapping[str, InstancePrice],
    settings: CostSettings,
    audit: AuditPlan | None = None,
) -> BundleCost:
    """Cost a sampled corpus on every type of a price table.

    Args:
        bundle: Bundle that scores.
        sample: Sample of the corpus, by the bundle's tokenizer.
        profiles: Profiles of machines: of this bundle, and of the built-in one, which correct the
            rules; the bundle's own comes last, and others are ignored.
        prices: Price table, by type.
        settings: How machines are bought.
        audit: Which rows a second bundle scores, too; None without an audit.

    Raises:
        InputError: The sample has nothing to score, or no type can be costed.
        BundleError: A bundle does not say how much arithmetic it does.
    """
    workloads = _estimate_workloads(bundle, sample, profiles, settings.rows)
    experience = gain_experience(bundle, profiles, prices)
    instances = estimate_instances(
        workloads,
        prices,
        traits=ModelTraits.of_bundle(bundle),
        market=settings.market,
        discount_percent=settings.discount_percent,
        today=settings.today,
        experience=experience,
    )
    if not instances.costs:
        reasons = "; ".join(dict.fromkeys(instances.left_out.values()))
        raise InputError(f"no instance type of the price table can be costed: {reasons}")
    workload, added = workloads[0][1], None
    if audit is not None:
        added, instances = add_audit(
            instances,
            audit,
            sample=sample,
            workload=workload,
            rows=settings.rows,
            profiles=profiles,
            prices=prices,
            experience=experience,
        )
    return BundleCost(
        bundle=bundle,
        workload=workload,
        instances=instances,
        profiles=tuple(profile for profile, _ in workloads),
        audit=added,
        experience=experience,
    )


def _estimate_workloads(
    bundle: Bundle, sample: CorpusSample, profiles: Sequence[MachineProfile], rows: int | None
) -> list[tuple[MachineProfile, Workload]]:
    """The workload by each profile of the bundle: cores, then GPUs, the most trusted first."""
    own = [profile for profile in profiles if profile.bundle_digest == bundle.digest]
    trusted = sorted(
        [*own, profile_of_bundle(bundle)], key=lambda profile: profile.gpu_name is not None
    )
    return [
        (
            profile,
            estimate_workload(
                sample,
                profile,
                shards_by=bundle.cost_profile,
                rows=rows,
                goes_on=None if bundle.cascade is None else bundle.cascade.share_by_length,
            ),
        )
        for profile in trusted
    ]


def plan_offers(cost: BundleCost, settings: CostSettings) -> list[MachineOffer]:
    """Machines that could be rented: those of types that the bundle has a graph for.

    The head of spot machines is on demand.
    """
    offers = []
    for instance in cost.instances.costs:
        if instance.needs_gpu_graph:
            continue
        head = find_market_price(
            instance.price,
            "on-demand" if settings.market == "spot" else settings.market,
            discount_percent=settings.discount_percent,
            today=settings.today,
        )
        assert head is not None  # each type has an on-demand price
        pace, workload = instance.pace, cost.workload
        job_s = instance.job_s if pace is None else pace.alone_s
        num_shards = workload.num_shards if pace is None else workload.num_gpu_shards
        offers.append(
            MachineOffer(
                instance_type=instance.price.instance_type,
                usd_per_hour=head.usd_per_hour,
                worker_usd_per_hour=instance.market_price.usd_per_hour,
                num_actors=instance.num_actors,
                job_s=job_s,
                shard_s=job_s * instance.num_actors / num_shards,
                error_factor=instance.error_factor,
                is_measured=instance.basis == "measured",
                sample_error=workload.relative_error,
                uses_gpus=pace is not None,
                helper=_helper_offer(instance),
            )
        )
    return offers


def _helper_offer(instance: InstanceCost) -> HelperOffer | None:
    """The type that could tokenize for a type whose GPUs are faster than their hosts."""
    pace = instance.pace
    if pace is None or pace.helper is None or not pace.num_helpers:
        return None
    return HelperOffer(
        instance_type=pace.helper.price.instance_type,
        usd_per_hour=pace.helper.market_price.usd_per_hour,
        gpu_s=pace.gpu_s,
        own_s=pace.own_s,
        helper_s=pace.helper_s,
    )


def _sample(bundle: Bundle, corpus: Corpus, settings: CostSettings) -> CorpusSample:
    seconds_per_token = bundle.cost_profile.estimate_seconds_per_token()
    return sample_corpus(
        corpus,
        bundle.load_tokenizer(),
        max_length=bundle.max_length,
        num_shards=plan_num_shards(corpus.text_bytes, seconds_per_token),
        size=settings.sample,
        seed=settings.seed,
    )


def _check_bad_rows(uri: str, sample: CorpusSample, limit: BadRowLimit) -> None:
    """Refuse to cost a corpus whose bad rows would end a run over it.

    Raises:
        InputError: More rows of the sample are bad than a run would bear.
    """
    num_bad = sum(window.num_bad for window in sample.windows)
    num_rows = sum(window.num_rows for window in sample.windows)
    if num_rows and limit.is_exceeded(num_bad, num_rows, are_all=True):
        raise InputError(
            f"{uri}: {num_bad:,} of {num_rows:,} rows sampled hold no text that can be scored, "
            f"more than --max-bad-rows {limit} allows; check --text-column and the files, or raise "
            "it"
        )
