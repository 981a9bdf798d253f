"""How a model is trained and fine-tuned: plain values, checked as they are set.

    flags -> [training_config] -> trainer, finetune

This module imports no torch, so that a command can show its flags without loading it.
"""

from dataclasses import dataclass, field, replace
from typing import Self

from fastformers.options import check_at_least, check_option, check_positive, names_given, option


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long and how fast to train; the meaning of each field stands beside it.

    What is None depends on the model that is trained, and is `filled` in before.
    """

    epochs: float = field(metadata=option("passes over the training rows"))
    learning_rate: float | None = field(
        metadata=option("peak of a rate that rises for 6% of the steps, then falls to zero")
    )
    batch_rows: int | None = field(default=32, metadata=option("rows of one training step"))
    seed: int = field(
        default=0, metadata=option("seed of new weights, of the order of rows and of dropout")
    )

    def __post_init__(self) -> None:
        check_positive(self, "epochs", "learning_rate")
        check_at_least(self, 1, "batch_rows")
        check_option(self, "seed", 0 <= self.seed < 2**32, "0 to 2^32 - 1")

    def filled(self, *, learning_rate: float, batch_rows: int) -> Self:
        """The same, with these values in place of those that are None."""
        return replace(
            self,
            learning_rate=learning_rate if self.learning_rate is None else self.learning_rate,
            batch_rows=batch_rows if self.batch_rows is None else self.batch_rows,
        )


DEFAULT_MAX_LENGTH = 256  # tokens: most texts are shorter, and a step costs by its longest row


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Settings of fine-tuning; the defaults suit a small encoder and ten thousand texts or more.

    Attributes:
        training: Length and speed of the training.
    """

    training: TrainingConfig = field(
        default=TrainingConfig(epochs=3.0, learning_rate=5e-5, batch_rows=16)
    )
    max_length: int | None = field(
        default=None,
        metadata=option(
            f"tokens to truncate to, special tokens included ({DEFAULT_MAX_LENGTH}, or what the "
            "encoder has positions for)"
        ),
    )
    num_layers: int | None = field(
        default=None, metadata=option("number of encoder layers to keep, from the first (all)")
    )
    label_names: tuple[str, ...] = field(
        default=(),
        metadata=option(
            "names of the teacher's labels in the order of the file's, numbers by size and others "
            "by the alphabet; repeat it for names with commas (the labels themselves)",
            metavar="A,B",
        ),
    )

    def __post_init__(self) -> None:
        check_at_least(self, 8, "max_length")
        check_at_least(self, 1, "num_layers")
        object.__setattr__(self, "label_names", names_given(self.label_names))
