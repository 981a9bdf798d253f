"""What a bundle says of its second graph, and of the rows that go on to it.

    compress --cascade -> [record] -> bundle.json -> scoring, cost, inspect, model card

The first graph scores every row. A row whose margin is below the threshold goes on to the second
graph, and has the second's logits alone. The threshold was chosen on held-out rows, whose share
that went on is stored by length, so that the cost of other lengths is known before they are scored.
This module knows nothing of how a threshold is chosen or of engines.

Shape suffixes: N rows.

Source:
    Viola and Jones 2001, CVPR (cascades); Chow 1970, IEEE Trans. Inf. Theory 16:41 (the rule).
"""

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from fastformers.errors import InputError
from fastformers.inference.cost_profile import CostProfile
from fastformers.inference.description.stage_quality import StageQuality
from fastformers.inference.manifest import SECOND_FILE

if TYPE_CHECKING:
    from fastformers.inference.bundle import Bundle


@dataclass(frozen=True, kw_only=True)
class ShareByLength:
    """Share of rows that go on, by their length.

    Attributes:
        lengths: Lengths at which it is known, ascending, in tokens.
        shares: Share of the rows about as long as each of them.
    """

    lengths: tuple[float, ...]
    shares: tuple[float, ...]

    def at(self, lengths_N: NDArray[np.integer] | NDArray[np.float64]) -> NDArray[np.float64]:
        """Expected share (N,) of rows of each length that go on."""
        shares_N: NDArray[np.float64] = np.interp(lengths_N, self.lengths, self.shares)
        return shares_N


@dataclass(frozen=True, kw_only=True)
class Cascade:
    """The second graph of a bundle, and which rows go on to it.

    Attributes:
        precision: Precision that the second graph computes in.
        threshold: Rows with a smaller margin go on; see `margins`.
        share: Share of the held-out rows that go on.
        share_by_length: The same by their length.
        num_held_out: Number of held-out rows that the threshold was chosen on.
        max_drop: Points of 100 x the metric that the cascade was allowed to lose to the second.
        eval_share: Share of the rows of the evaluation file that go on; None if not measured.
        first_profile, second_profile: Seconds by length of each graph, where all rows are scored by
            it; the bundle's own profile is the expected one of both.
        second_quality: Quality of the second graph alone; None in a bundle without measurements.
        quality: Quality of the cascade; None likewise.
        multiply_adds_per_token, num_layers, width: Shape of the second graph, as `Bundle` has those
            of the first.
        input_names: Inputs of the second graph; None where they are those of the first.
        file: Name of the second graph's ONNX file.
    """

    precision: str
    threshold: float
    share: float
    share_by_length: ShareByLength
    num_held_out: int
    max_drop: float
    first_profile: CostProfile
    second_profile: CostProfile
    eval_share: float | None = None
    second_quality: StageQuality | None = None
    quality: StageQuality | None = None
    multiply_adds_per_token: int | None = None
    num_layers: int | None = None
    width: int | None = None
    input_names: tuple[str, ...] | None = None
    file: str = SECOND_FILE

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """The cascade that a manifest's fields speak of."""
        input_names = fields.get("input_names")
        qualities = {
            name: None if fields[name] is None else StageQuality(**fields[name])
            for name in ("second_quality", "quality")
        }
        return cls(
            precision=fields["precision"],
            threshold=fields["threshold"],
            share=fields["share"],
            share_by_length=ShareByLength(
                lengths=tuple(fields["share_by_length"]["lengths"]),
                shares=tuple(fields["share_by_length"]["shares"]),
            ),
            num_held_out=fields["num_held_out"],
            max_drop=fields["max_drop"],
            first_profile=CostProfile.from_json(fields["first_profile"]),
            second_profile=CostProfile.from_json(fields["second_profile"]),
            eval_share=fields.get("eval_share"),
            multiply_adds_per_token=fields.get("multiply_adds_per_token"),
            num_layers=fields.get("num_layers"),
            width=fields.get("width"),
            input_names=None if input_names is None else tuple(input_names),
            file=fields["file"],
            **qualities,
        )


def describe(cascade: Cascade) -> str:
    """Which rows go on, in one line for people."""
    evaluated = ""
    if cascade.eval_share is not None:
        evaluated = f", and {100 * cascade.eval_share:.1f}% of the evaluation file"
    return (
        f"rows with a margin below {cascade.threshold:.4g} go on to the second graph "
        f"({cascade.precision}): {100 * cascade.share:.1f}% of {cascade.num_held_out:,} held-out "
        f"rows{evaluated}"
    )


def summarize(cascade: Cascade) -> dict[str, Any]:
    """What a command's last line says of a cascade, as plain values."""
    fields = asdict(cascade)
    names = ("precision", "threshold", "share", "share_by_length", "num_held_out", "max_drop")
    return {name: fields[name] for name in (*names, "eval_share")}


def check_one_graph(bundle: "Bundle", what: str, remedy: str) -> None:
    """Refuse a cascade where one graph is needed.

    Raises:
        InputError: It is a cascade: "`what` one graph; give `remedy`".
    """
    if bundle.cascade is not None:
        raise InputError(f"{bundle}: is a cascade of two graphs, and {what} one; give {remedy}")


def first_graph(bundle: "Bundle") -> "Bundle":
    """The bundle as if its first graph were the only one; one without a cascade as it is."""
    if bundle.cascade is None:
        return bundle
    return replace(bundle, cascade=None, cost_profile=bundle.cascade.first_profile)


def second_graph(bundle: "Bundle") -> "Bundle":
    """The bundle of a cascade as if its second graph were the only one."""
    cascade = bundle.cascade
    assert cascade is not None
    return replace(
        bundle,
        cascade=None,
        model_file=cascade.file,
        input_names=cascade.input_names or bundle.input_names,
        precision=cascade.precision,
        cost_profile=cascade.second_profile,
        multiply_adds_per_token=cascade.multiply_adds_per_token,
        num_layers=cascade.num_layers,
        width=cascade.width,
    )


def graphs_by_share(bundle: "Bundle") -> tuple[tuple["Bundle", float], ...]:
    """Each graph of the CPU as a bundle by itself, with the expected share of rows it scores."""
    if bundle.cascade is None:
        return ((bundle, 1.0),)
    return ((first_graph(bundle), 1.0), (second_graph(bundle), bundle.cascade.share))


def expected_profile(
    first: CostProfile,
    second: CostProfile,
    share_by_length: ShareByLength,
) -> CostProfile:
    """Cost of a row of a cascade: of the first graph, and of the second for the rows that go on.

    Args:
        first, second: Profiles of the graphs, of equal lengths and token budgets.
        share_by_length: Share of rows that go on.
    """
    shares = share_by_length.at(np.array(first.lengths))

    def both(own: tuple[float, ...], others: tuple[float, ...]) -> tuple[float, ...]:
        return tuple((np.array(own) + shares * np.array(others)).tolist())

    return replace(
        first,
        seconds_per_row=both(first.seconds_per_row, second.seconds_per_row),
        seconds_alone=both(first.seconds_alone, second.seconds_alone),
        waiting_share=max(first.waiting_share, second.waiting_share),
    )
