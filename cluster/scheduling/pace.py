"""How fast a worker or a node is, against what was predicted, and how long a task will take yet.

    finished tasks -> [pace] -> expected seconds of the next

Predictions come from the bundle's cost profile, measured on another machine, so they are right but
for a factor, which is measured here for each worker. This module knows nothing of jobs.
"""

_WEIGHT = 0.3  # of the newest task; the last few decide
_OVERDUE_FACTOR = 2.0


class Pace:
    """Seconds of wall time for each core-second predicted, and seconds of a task."""

    def __init__(self) -> None:
        self._factor: float | None = None
        self._seconds: float | None = None

    @property
    def seconds(self) -> float | None:
        """Seconds that a task takes, whatever was predicted; None before the first."""
        return self._seconds

    @property
    def factor(self) -> float | None:
        """Seconds for each predicted one; None before the first."""
        return self._factor

    def add(self, seconds: float, predicted_s: float | None) -> None:
        """Take what a task took, and what was predicted of it if anything was."""
        self._seconds = _mix(self._seconds, seconds)
        if predicted_s:
            self._factor = _mix(self._factor, seconds / predicted_s)

    def expect(self, predicted_s: float | None, *, otherwise: "Pace | None" = None) -> float | None:
        """Seconds that a task will take, or None if nothing is known.

        Args:
            predicted_s: Core-seconds predicted for it, or None.
            otherwise: Pace to go by where this one has seen no such task.
        """
        if predicted_s is not None and self._factor is not None:
            return predicted_s * self._factor
        if predicted_s is None and self._seconds is not None:
            return self._seconds
        return otherwise.expect(predicted_s) if otherwise is not None else None


def estimate_remaining_s(elapsed_s: float, expected_s: float) -> float:
    """Seconds that a task will go on, given how long it has run.

    One that has taken twice what was expected is expected to take as long again as it has already
    (for heavy tails, the best guess without knowing why).
    """
    if elapsed_s > _OVERDUE_FACTOR * expected_s:
        return elapsed_s
    return max(0.0, expected_s - elapsed_s)


def _mix(old: float | None, new: float) -> float:
    return new if old is None else (1 - _WEIGHT) * old + _WEIGHT * new
