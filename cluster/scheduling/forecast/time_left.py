"""How long the rest of a run takes on the slots that are there now, with its 90% interval.

    finished jobs -> [time_left] -> TimeLeft -> progress -> quotes in USD and hours

Let W be the core-seconds predicted of what is left, f the seconds that a slot takes for each of
them, from the end of its job before on, so that handing over, waiting and what was lost are in it,
and n the slots of a kind of machine. These do R = sum(n / f) of W a second, so that

    T = (W + S * w) / R + S * c / n - d / 2N

where S slices are not cut, w is predicted of each, cutting one takes c in a slot, and half a shard
of d seconds is done already in each of the N slots, while they end half a shard apart. The variance
of T has these parts:

- pace: for each kind of machine, by its share of R, V * (1 / done + 1 / left) with V of `blocks`:
  how well f is known, and how the rest will differ from it; where no shard of the kind has ended,
  its f is that of others of its device, and 0.3 of it is not known;
- slices: the same for w and for c, by the number of slices;
- the first shards to end, where few have, are the fast ones: `_bias_of_first`, and 0.6 of it;
- tail: d^2 / 12, as the last shards end at any moment within a shard;
- drift: 3% of T, for what no part of a run can tell of another, such as a neighbor that comes.

The interval is that of a lognormal T, with Student's t for the degrees of freedom of the sum (Welch
and Satterthwaite). Nodes that will come or go are not in it: they are in the next forecast.
Everything here is arithmetic on sums; it knows nothing of prices.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist

from fastformers.cluster.scheduling.forecast.blocks import Prior, RatioBlocks
from fastformers.inference.engine import Device
from fastformers.inference.metrics import student_quantile

CONFIDENCE = 0.9
_Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
# Before much was seen: how shards differ from what their lengths say, and slices in what is
# predicted of them, by our judgment. The same job took 317, 338 and 330 core-seconds within two
# hours on one shared machine (2026-11-24): 3% between runs.
_PACE, _SLICES = Prior(relative=0.12, weight=3), Prior(relative=0.4, weight=3)
_DRIFT = 0.03
_BIAS_TAKEN, _BIAS_UNKNOWN = 0.75, 0.6
_OTHER_TYPE = 0.3


@dataclass(frozen=True, slots=True)
class SlotKind:
    """What slots that are equally fast have in common.

    Attributes:
        device: What computes in them.
        machine: Instance type of their machine, or its processor where that is not known.
    """

    device: Device
    machine: str = ""


@dataclass(frozen=True, kw_only=True)
class WorkLeft:
    """What is left, and who is there for it.

    Attributes:
        known_s: Core-seconds predicted of the known shards that are not finished.
        num_shards: How many these are.
        shard_s: Core-seconds predicted of a shard, on average.
        num_slices: Slices that are not cut.
        scoring: Slots that score, by their kind.
        num_helpers: Slots that cut slices and do not score.
        scores: Whether shards are to be scored, or only cut.
    """

    known_s: float
    num_shards: int
    shard_s: float
    num_slices: int
    scoring: Mapping[SlotKind, int] = field(default_factory=dict)
    num_helpers: int = 0
    scores: bool = True


@dataclass(frozen=True, kw_only=True)
class TimeLeft:
    """Seconds until the last job is done, and their 90% interval."""

    seconds: float
    low_s: float
    high_s: float


@dataclass(frozen=True, slots=True)
class _Variance:
    """A part of a variance, and the degrees of freedom with which it is known."""

    amount: float
    freedom: float = math.inf


@dataclass(frozen=True, slots=True)
class _Cutting:
    """Seconds that cutting slices takes of all slots, and their variance."""

    seconds: float
    variance: _Variance


class JobTimes:
    """What finished jobs took; a few numbers, whatever the run."""

    def __init__(self, *, num_cut: int = 0, cut_s: float = 0.0) -> None:
        """Begin.

        Args:
            num_cut: Slices that earlier sessions have cut.
            cut_s: Core-seconds that are predicted of these.
        """
        self._paces: dict[SlotKind, RatioBlocks] = {}
        self._cut_by_scorers, self._cut_by_helpers = RatioBlocks(), RatioBlocks()
        self._slices = RatioBlocks()
        if num_cut and cut_s > 0:
            self._slices.add(num_cut, cut_s, parts=num_cut)

    @property
    def predicted_of_slice_s(self) -> float:
        """Core-seconds predicted of a slice that is not cut; 0 before any is."""
        return self._slices.ratio or 0.0

    def add_shard(self, kind: SlotKind, predicted_s: float, seconds: float) -> None:
        """Add a shard that was scored, and the seconds that it took of its slot."""
        self._paces.setdefault(kind, RatioBlocks()).add(predicted_s, seconds)

    def add_slice(self, predicted_s: float, *, is_rest: bool) -> None:
        """Add what is predicted of a slice that was cut; a rest belongs to the slice before it."""
        self._slices.add(0 if is_rest else 1, predicted_s)

    def add_cutting(self, seconds: float, *, is_rest: bool, by_scorer: bool) -> None:
        """Add the seconds that cutting a slice took of a slot, which scores or only helps."""
        cut = self._cut_by_scorers if by_scorer else self._cut_by_helpers
        cut.add(0 if is_rest else 1, seconds)

    def time_left(self, left: WorkLeft) -> TimeLeft | None:
        """How long the rest takes; None where nothing is known of it, or nobody is there."""
        if left.num_slices and self._slices.ratio is None:
            return None
        total_s = left.known_s + left.num_slices * self.predicted_of_slice_s
        num_slots = sum(left.scoring.values())
        helped = self._cutting_left(self._cut_by_helpers, left.num_slices, left.num_helpers)
        if not left.scores:
            return _interval(helped.seconds, [helped.variance]) if left.num_helpers else None
        rates = self._rates(left.scoring)
        rate = sum(rates.values())
        if not rate:
            return None
        scored_s = total_s / rate
        num_timed = sum(left.scoring[kind] for kind in rates)
        shard_s = left.shard_s * num_timed / rate
        in_hand = min(left.num_shards, num_timed)
        least_s = 0.0 if left.num_slices else shard_s * in_hand / (in_hand + 1)
        cut = self._cutting_left(self._cut_by_scorers, left.num_slices, num_slots)
        seconds = max(scored_s + cut.seconds - shard_s / (2 * num_timed), least_s)
        parts = [
            *self._pace_variances(rates, left.scoring, total_s, scored_s),
            self._slice_variance(left.num_slices, total_s, scored_s),
            cut.variance,
            _Variance(shard_s**2 / 12),
        ]
        if helped.seconds > seconds:
            seconds, parts = helped.seconds, [helped.variance]
        return _interval(seconds, parts)

    def _cutting_left(self, cut: RatioBlocks, num_slices: int, num_slots: int) -> "_Cutting":
        """What cutting the slices that are left takes of these slots, which cut a share of all."""
        number = self._cut_by_scorers.sum_x + self._cut_by_helpers.sum_x
        if not (num_slices and num_slots and cut.ratio):
            return _Cutting(0.0, _Variance(0.0))
        own = num_slices * cut.sum_x / number
        spread = cut.spread(_SLICES)
        amount = spread.per_x * own * (1 + own / cut.sum_x)
        return _Cutting(
            own * cut.ratio / num_slots, _Variance(amount / num_slots**2, spread.freedom)
        )

    def _rates(self, slots: Mapping[SlotKind, int]) -> dict[SlotKind, float]:
        """Core-seconds predicted that the slots of each kind do in a second.

        A kind of which no shard was seen is like the others of its device; without them it is left
        out.
        """
        rates: dict[SlotKind, float] = {}
        for kind, number in slots.items():
            known = [self._paces[kind]] if kind in self._paces else []
            known = known or [
                pace for other, pace in self._paces.items() if other.device == kind.device
            ]
            predicted_s = sum(pace.sum_x for pace in known)
            taken_s = sum(pace.sum_y for pace in known)
            if predicted_s > 0 and taken_s > 0:
                bias = sum(_bias_of_first(pace, number) * pace.sum_x for pace in known)
                rates[kind] = number * predicted_s / taken_s / (1 + bias / predicted_s)
        return rates

    def _pace_variances(
        self,
        rates: Mapping[SlotKind, float],
        slots: Mapping[SlotKind, int],
        total_s: float,
        scored_s: float,
    ) -> list[_Variance]:
        parts = []
        rate = sum(rates.values())
        for kind, own in rates.items():
            pace, share = self._paces.get(kind), own / rate
            if pace is None:
                parts.append(_Variance((_OTHER_TYPE * share * scored_s) ** 2))
            if pace is None or not pace.ratio or total_s <= 0:
                continue
            spread = pace.spread(_PACE)
            relative = spread.per_x / pace.ratio**2 * (1 / pace.sum_x + 1 / (share * total_s))
            bias = _BIAS_UNKNOWN * _bias_of_first(pace, slots[kind])
            parts.append(_Variance(relative * (share * scored_s) ** 2, spread.freedom))
            parts.append(_Variance((bias * share * scored_s) ** 2))
        return parts

    def _slice_variance(self, num_slices: int, total_s: float, scored_s: float) -> _Variance:
        if not num_slices or total_s <= 0:
            return _Variance(0.0)
        spread = self._slices.spread(_SLICES)
        amount = spread.per_x * num_slices * (1 + num_slices / self._slices.sum_x)
        return _Variance(amount * (scored_s / total_s) ** 2, spread.freedom)


def _bias_of_first(pace: RatioBlocks, num_slots: int) -> float:
    """How much too fast the first shards to end make their kind of slot look, as a share.

    Where fewer have ended than are under way, they are the fastest of them: of a normal sample, the
    mean of the lowest share q is pdf(z) / q standard deviations low, with z the quantile of q. Not
    all shards began together, so three quarters of it are taken.
    """
    share = pace.count / (pace.count + num_slots)
    if share >= 0.5 or not pace.ratio:
        return 0.0
    z = NormalDist().inv_cdf(share)
    relative = math.sqrt(pace.spread(_PACE).per_x * pace.count / pace.sum_x) / pace.ratio
    return _BIAS_TAKEN * relative * NormalDist().pdf(z) / share


def _interval(seconds: float, parts: list[_Variance]) -> TimeLeft:
    """The interval around a time whose variance has these parts."""
    if seconds <= 0:
        return TimeLeft(seconds=0.0, low_s=0.0, high_s=0.0)
    variance = math.fsum(part.amount for part in parts) + (_DRIFT * seconds) ** 2
    unsure = math.fsum(part.amount**2 / part.freedom for part in parts)
    freedom = variance**2 / unsure if unsure > 0 else math.inf
    sigma = math.sqrt(math.log1p(variance / seconds**2))
    factor = math.exp(student_quantile(_Z, freedom) * sigma)
    return TimeLeft(seconds=seconds, low_s=seconds / factor, high_s=seconds * factor)
