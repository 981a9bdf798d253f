"""How good a model was after each stage of its recipe, and how sure that is.

    quality gate -> [stage_quality] -> bundle.json -> inspect, model card

This module knows nothing of how a quality is measured, or of what a stage does.
"""

import math
from dataclasses import dataclass, field

from fastformers.inference.metrics import share_interval, spearman_interval

_SHARES = ("accuracy", "exact match")


@dataclass(frozen=True, kw_only=True)
class StageQuality:
    """Quality of the model after one stage of the recipe; in a bundle, on the evaluation file.

    Attributes:
        stage: Name of the stage; the first is the teacher itself.
        quality: Value of the task's metric, at most 1.
        agreement: Agreement with the teacher, at most 1; for labels the share of rows that have the
            teacher's label.
        num_rows: Number of these rows, or of questions where one row of each is the answer.
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

        A share of right rows and Spearman's correlation have one, see `metrics`. None for other
        metrics, which the value alone says too little of, for too few rows, and for what is not
        finite.
        """
        if not math.isfinite(self.quality):
            return None
        if self.metric in _SHARES and self.num_rows > 0:
            return share_interval(self.quality * self.num_rows, self.num_rows)
        if self.metric == "Spearman" and self.num_rows > 3 and abs(self.quality) < 1:
            return spearman_interval(self.quality, self.num_rows)
        return None
