"""What an ablation measured, as a value, and as ablate.json: the one place that knows its keys.

    results + texts + conditions -> [summary] -> ablate.json, the last line of stdout -> report

A reader of the file looks up its keys here: they are the names of the attributes and properties.
Seconds are those of all texts. This module knows nothing of how steps are measured or shown.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastformers.ablation.measure import Ablation, StepResult

FORMAT_VERSION = 2  # raised whenever a key comes, goes or changes its meaning


@dataclass(frozen=True, kw_only=True)
class TextLengths:
    """The texts that were timed.

    Attributes:
        rows: Number of texts.
        tokens: Sum of their tokens.
        length_mean, length_p50, length_p95, length_max: Tokens of a text.
    """

    rows: int
    tokens: int
    length_mean: float
    length_p50: float
    length_p95: float
    length_max: int

    @classmethod
    def of(cls, lengths_N: NDArray[np.integer]) -> "TextLengths":
        """Describe N texts by their lengths in tokens."""
        p50, p95 = np.percentile(lengths_N, [50, 95])
        return cls(
            rows=len(lengths_N),
            tokens=int(lengths_N.sum()),
            length_mean=float(lengths_N.mean()),
            length_p50=float(p50),
            length_p95=float(p95),
            length_max=int(lengths_N.max()),
        )

    def __str__(self) -> str:
        return (
            f"{self.rows:,} texts, {self.tokens:,} tokens: mean {self.length_mean:.1f}, median "
            f"{self.length_p50:.0f}, p95 {self.length_p95:.0f}, longest {self.length_max}"
        )


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Under which conditions the steps were timed.

    Attributes:
        cpu_model: Name of the processor.
        num_cores: Physical cores that could be used.
        usd_per_hour: Price of the machine.
        price: Where the price comes from, for people.
        price_is_estimate: Whether the user named neither a price nor an instance type.
        versions: Version of each package that takes part.
        measured_at: ISO date.
        repeats: Runs of each step; the median counts.
        load_before: Runnable processes over the minute before.
    """

    cpu_model: str
    num_cores: int
    usd_per_hour: float
    price: str
    price_is_estimate: bool
    versions: dict[str, str]
    measured_at: str
    repeats: int
    load_before: float

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return (
            f"{self.num_cores} cores of {self.cpu_model}, {versions}, {self.measured_at}, median "
            f"of {self.repeats} runs. Price: {self.usd_per_hour:.4f} USD per hour ({self.price})."
        )


@dataclass(frozen=True, kw_only=True)
class AblationSummary:
    """Everything that an ablation measured.

    Attributes:
        steps: Lines of the table, from the slowest on; the first is padded, the second the same
            unpadded, and the last that is no aside is what all optimizations together reach.
        description: Models and texts in a few words.
        texts: The texts that were timed.
        conditions: Machine, price, versions and date.
    """

    steps: tuple[StepResult, ...]
    description: str
    texts: TextLengths
    conditions: Conditions

    @property
    def speedup(self) -> float:
        """The last step against the padded one."""
        return self.steps[0].seconds / self._last.seconds

    @property
    def speedup_unpadded(self) -> float:
        """The last step against the unpadded one."""
        return self.steps[1].seconds / self._last.seconds

    @property
    def speedup_with_tokenization(self) -> float | None:
        """`speedup` with tokenization on both sides; None where there was no text."""
        return _ratio(self.steps[0].total_s, self._last.total_s)

    @property
    def speedup_unpadded_with_tokenization(self) -> float | None:
        """`speedup_unpadded` with tokenization on both sides; None where there was no text."""
        return _ratio(self.steps[1].total_s, self._last.total_s)

    @property
    def headline(self) -> str:
        """Both speed-ups in one sentence, and with tokenization where there was text."""
        text = (
            f"{self.speedup:,.1f}x over PyTorch padded to the maximum, "
            f"{self.speedup_unpadded:,.1f}x over PyTorch unpadded"
        )
        padded, unpadded = self.speedup_with_tokenization, self.speedup_unpadded_with_tokenization
        if padded is None or unpadded is None:
            return text
        return f"{text}; with tokenization {padded:,.1f}x and {unpadded:,.1f}x"

    def to_json(self) -> dict[str, Any]:
        """Content of ablate.json, as values that `json.dumps` takes."""
        return {
            "format_version": FORMAT_VERSION,
            "steps": [asdict(step) for step in self.steps],
            "speedup": self.speedup,
            "speedup_unpadded": self.speedup_unpadded,
            "speedup_with_tokenization": self.speedup_with_tokenization,
            "speedup_unpadded_with_tokenization": self.speedup_unpadded_with_tokenization,
            "description": self.description,
            **asdict(self.texts),
            **asdict(self.conditions),
        }

    @property
    def _last(self) -> StepResult:
        return [step for step in self.steps if not step.is_aside][-1]


def summarize(
    results: Sequence[StepResult], ablation: Ablation, conditions: Conditions
) -> AblationSummary:
    """Put together what was measured.

    Args:
        results: Result of each step, at least of the first two.
        ablation: What was measured.
        conditions: Machine, price, versions and date.
    """
    return AblationSummary(
        steps=tuple(results),
        description=ablation.description,
        texts=TextLengths.of(ablation.lengths_N),
        conditions=conditions,
    )


def _ratio(slow: float | None, fast: float | None) -> float | None:
    return None if slow is None or fast is None else slow / fast
