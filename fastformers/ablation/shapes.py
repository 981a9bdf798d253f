"""Models that are ablated by their shapes alone, each set by its name.

    name -> [shapes] -> from_shapes

Numbers alone: importing this loads no torch, so the command line takes its choices from here.

Source:
    Kim and Hassan Awadalla 2020, arXiv:2010.13382, Table 3.
"""

from dataclasses import dataclass, replace

from fastformers.benchmark.encoder_shapes import (
    BERT_BASE,
    PRUNED_HALF,
    PRUNED_QUARTER,
    STUDENT,
    EncoderShape,
    show_shares,
)
from fastformers.errors import InputError


@dataclass(frozen=True, kw_only=True)
class SmallerShape:
    """A further step: the student's graph again, in a smaller or faster shape.

    Attributes:
        name: Name of the step.
        shape: Shape of the model.
        paper_cumulative: The paper's cumulative speed-up; None for a step that the paper lacks.
        is_aside: Whether it is shown beside the ablation: neither the base of the next step nor the
            end.
    """

    name: str
    shape: EncoderShape
    paper_cumulative: float | None
    is_aside: bool = False


@dataclass(frozen=True, kw_only=True)
class AblationShapes:
    """Shapes of a teacher, of its student, and of the smaller models made from the student.

    Attributes:
        name: As it is asked for.
        paper_cumulative: The paper's cumulative speed-ups of the steps before `smaller`.
    """

    name: str
    teacher: EncoderShape
    student: EncoderShape
    paper_cumulative: tuple[float, ...]
    smaller: tuple[SmallerShape, ...]

    def keep_tokens(self, shares: tuple[float, ...]) -> "AblationShapes":
        """The same, and the last models again with layers that keep a share of their tokens.

        Args:
            shares: Share of the tokens entering a layer that leave it, from the first layer on.

        Raises:
            InputError: There are more shares than layers that may drop tokens.
        """
        num_layers = self.student.num_layers
        if len(shares) > num_layers - 1:
            shown = ",".join(f"{share:g}" for share in shares)
            raise InputError(
                f"--keep-tokens {shown}: of the {num_layers} layers of {self.name}'s student, "
                f"{num_layers - 1} may drop tokens (of the last one, only the first token is read "
                f"anyway); give no more than {num_layers - 1}"
            )
        whole = [smaller for smaller in self.smaller if not smaller.shape.keep_shares]
        last = next(index for index, s in reversed([*enumerate(whole)]) if not s.is_aside)
        fewer = tuple(_keep_tokens(smaller, shares) for smaller in whole[last:])
        return replace(self, smaller=(*self.smaller, *fewer))


def _keep_tokens(smaller: SmallerShape, shares: tuple[float, ...]) -> SmallerShape:
    what = f"token pruning, keeping {show_shares(shares)}"
    name = f"{smaller.name}, {what}" if smaller.is_aside else f"+ {what} (not the paper's)"
    return SmallerShape(
        name=name,
        shape=replace(smaller.shape, keep_shares=shares),
        paper_cumulative=None,
        is_aside=smaller.is_aside,
    )


BERT_BASE_SHAPES = AblationShapes(
    name="bert-base",
    teacher=BERT_BASE,
    student=STUDENT,
    paper_cumulative=(1.0, 3.51, 32.64, 73.66, 129.29),  # of Table 3, up to multi-instance
    smaller=(
        SmallerShape(
            name="+ pruning, 25% of heads and 25% of FFN",
            shape=PRUNED_QUARTER,
            paper_cumulative=178.67,
        ),
        SmallerShape(
            name="+ pruning, 33% of heads and 50% of FFN",
            shape=PRUNED_HALF,
            paper_cumulative=233.87,
        ),
        SmallerShape(
            name="not the paper's: the same size as 4 heads of 52",
            shape=replace(PRUNED_HALF, num_heads=4, head_width=52),
            paper_cumulative=None,
            is_aside=True,
        ),
    ),
)
ABLATION_SHAPES = {shapes.name: shapes for shapes in (BERT_BASE_SHAPES,)}
