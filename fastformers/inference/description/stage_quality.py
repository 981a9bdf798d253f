"""How good a model was after each stage of its recipe, and how sure that is.

    quality gate -> [stage_quality] -> bundle.json -> inspect, model card

This module knows nothing of how a quality is measured, or of what a stage does.
"""

import math
from dataclasses import dataclass, field

_Z = 1.959964  # of a normal distribution: 95% lie within so many standard deviations
_SHARES = ("accuracy", "exact match")


@dataclass(frozen=True, kw_only=True)
class StageQuality:
    """Quality of the model after one stage of the recipe, measured on the evaluation file.

    Attributes:
        stage: Name of the stage; the first is the teacher itself.
        quality: Value of the task's metric, at most 1.
        agreement: Agreement with the teacher, at most 1; for labels the share of rows that have the
            teacher's label.
        num_rows: Number of evaluation rows, or of questions where one row of each is the answer.
        model_bytes: Size of the model after the stage, its weights included.
        seconds: Duration of the stage, evaluation not included.
        metric: Name of the metric of `quality`: "accuracy", "micro-F1", ... (see `tasks`).
        other_metrics: Further metrics, by name.
    """

    stage: str
    quality: float
    agreement: float
    num_rows: int
    model_bytes: int
    seconds: float
    metric: str = "accuracy"
    other_metrics: dict[str, float] = field(default_factory=dict)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% interval of `quality`, as if the rows were drawn at random.

        A share of right rows has Wilson's interval, Spearman's correlation Fisher's with the
        variance of Fieller, Hartley and Pearson. None for other metrics, which the value alone says
        too little of, for too few rows, and for what is not finite.

        Source:
            Wilson 1927, JASA 22:209; Fieller, Hartley and Pearson 1957, Biometrika 44:470.
        """
        if not math.isfinite(self.quality):
            return None
        if self.metric in _SHARES and self.num_rows > 0:
            return _wilson(self.quality, self.num_rows)
        if self.metric == "Spearman" and self.num_rows > 3 and abs(self.quality) < 1:
            margin = _Z * math.sqrt(1.06 / (self.num_rows - 3))
            center = math.atanh(self.quality)
            return math.tanh(center - margin), math.tanh(center + margin)
        return None


def _wilson(share: float, num_rows: int) -> tuple[float, float]:
    center = share + _Z**2 / (2 * num_rows)
    margin = _Z * math.sqrt(share * (1 - share) / num_rows + (_Z / (2 * num_rows)) ** 2)
    scale = 1 + _Z**2 / num_rows
    return max(0.0, (center - margin) / scale), min(1.0, (center + margin) / scale)
