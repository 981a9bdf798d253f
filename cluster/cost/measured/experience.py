"""How right predictions of measured machines were, and what follows for machines that were not.

    machines predicted and measured -> [experience] -> error factors, corrections -> type speeds

Two things are learned. A rule's error factor widens or narrows with how far it was off on machines
as far apart (`learn_error`). And where the built-in bundle was measured on a type, or on its
generation of processors, what the rule of `hardware.py` says too much or too little of it is taken
out of the prediction for any other int8 bundle. What was measured on a busy machine is shown and
teaches nothing. This module knows nothing of files and prices.
"""

import statistics
from dataclasses import dataclass

from fastformers.cluster.cost.machine_profile import MachineProfile
from fastformers.cluster.pricing.hardware import (
    OTHER_BUNDLE_ERROR,
    SAME_GENERATION_ERROR,
    error_between_measurements,
    join_errors,
    learn_error,
)


@dataclass(frozen=True, kw_only=True)
class MachineCheck:
    """A machine as it was predicted, beside what was measured on it.

    Attributes:
        profile: What was measured.
        scaled_from: What the prediction was scaled from, for people.
        predicted_tokens_per_s: Tokens a second of all its cores, or of one GPU, as the rules say
            without this profile; one row of each length that was measured.
        measured_tokens_per_s: The same as measured.
        judged_error: Error factor of that prediction by judgment alone.
        is_reference: Whether it is of the built-in bundle, which compares machines.
    """

    profile: MachineProfile
    scaled_from: str
    predicted_tokens_per_s: float
    measured_tokens_per_s: float
    judged_error: float
    is_reference: bool

    @property
    def ratio(self) -> float:
        """Measured over predicted seconds, and so over the predicted cost."""
        return self.predicted_tokens_per_s / self.measured_tokens_per_s

    @property
    def rule(self) -> tuple[bool, float]:
        """The rule that predicted it: whether of GPUs, and its error factor by judgment."""
        return self.profile.gpu_name is not None, self.judged_error

    @property
    def teaches(self) -> bool:
        """Whether the machine had no other work to do, so that the ratio says something of it."""
        return not self.profile.cost.is_rough


@dataclass(frozen=True, kw_only=True)
class Correction:
    """What measurements of the built-in bundle say of the way from one machine to another.

    Attributes:
        ratio: Factor on the seconds that the rule says.
        error_factor: The speed is taken to be right up to this factor then.
        source: Machines that it is learned from, for people.
    """

    ratio: float
    error_factor: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Experience:
    """All that was learned from machines that were measured.

    Attributes:
        checks: The machines.
        reference_generation: Generation of the processor that made the built-in bundle; its ratio
            is 1.
    """

    checks: tuple[MachineCheck, ...] = ()
    reference_generation: str | None = None

    def error_of(self, judged: float, *, is_gpu: bool) -> float:
        """Error factor of a rule, by judgment and by the machines that it was held against."""
        return learn_error(judged, self.ratios_of((is_gpu, judged)))

    def ratios_of(self, rule: tuple[bool, float]) -> list[float]:
        """Measured over predicted seconds of the machines that a rule was held against."""
        return [check.ratio for check in self.checks if check.teaches and check.rule == rule]

    def correct(
        self,
        *,
        measured_type: str | None,
        measured_generation: str | None,
        instance_type: str,
        generation: str,
    ) -> Correction | None:
        """What to multiply the seconds by that were scaled from one machine to a type.

        Args:
            measured_type: Type of the machine that was measured, if it has one.
            measured_generation: Generation of its processor; None where it is hidden.
            instance_type: Type that is predicted.
            generation: Generation of its processor.

        Returns:
            None where the built-in bundle was not measured on processors of both generations.
        """
        before = self._find(measured_type, measured_generation)
        after = self._find(instance_type, generation)
        if before is None or after is None:
            return None
        own_errors = [error for _, error, _ in (before, after)]
        return Correction(
            ratio=after[0] / before[0],
            error_factor=join_errors(OTHER_BUNDLE_ERROR, *own_errors),
            source=after[2],
        )

    def _find(
        self, instance_type: str | None, generation: str | None
    ) -> tuple[float, float, str] | None:
        """Ratio of a type, or of its generation; its error factor; where it comes from."""
        known = [
            check
            for check in self.checks
            if check.is_reference and check.teaches and check.profile.gpu_name is None
        ]
        own = [c.ratio for c in known if instance_type and c.profile.instance_type == instance_type]
        if own:
            source = f"the built-in bundle on {instance_type}"
            return statistics.median(own), error_between_measurements(own), source
        if generation is None:
            return None
        error = self.error_of(SAME_GENERATION_ERROR, is_gpu=False)
        alike = [c.ratio for c in known if c.profile.cost.cpu_generation == generation]
        if alike:
            error = max(error, error_between_measurements(alike))
            return statistics.median(alike), error, f"the built-in bundle on {generation}"
        if generation == self.reference_generation:
            return 1.0, error, f"the built-in bundle on {generation}"
        return None
