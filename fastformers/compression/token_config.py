"""How many tokens the layers of a model pass on, and how it is trained for it.

    flags -> [token_config] -> recipe_config -> keep_tokens stage

It is a part of a recipe as the configs in recipe_config.py are, and imports no torch either.
"""

import math
from dataclasses import dataclass, field

from fastformers.errors import InputError
from fastformers.options import check_at_least, check_option, option

AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class TokenConfig:
    """How many tokens the layers pass on, and the training for it."""

    keep_tokens: tuple[str | float, ...] = field(
        default=(),
        metadata=option(
            "share (above 0, to 1) of the tokens entering a layer that leave it, layer by layer "
            "from the first on, the others keep all; auto: chosen on rows that train nothing (all)",
            metavar="SHARE,SHARE",
        ),
    )
    token_epochs: float = field(
        default=2.0,
        metadata=option("epochs of distillation from the teacher after that; 0 leaves it out"),
    )
    token_soft_start: float = field(
        default=0.3,
        metadata=option(
            "share (0-1) of these steps in which tokens still stay, with less and less weight",
            metavar="SHARE",
        ),
    )
    # Without training: what 2 epochs win back is of the order of what a model loses down to there.
    min_token_agreement: float = field(
        default=95.0,
        metadata=option(
            "with auto, drop tokens for as long as the model, before it is trained again, agrees "
            "with itself as it was on this share of the rows that choose",
            metavar="PERCENT",
        ),
    )

    def __post_init__(self) -> None:
        given = (self.keep_tokens,) if isinstance(self.keep_tokens, str) else self.keep_tokens
        texts = [part for text in given for part in str(text).split(",")]
        if [text.strip() for text in texts] == [AUTO]:
            object.__setattr__(self, "keep_tokens", (AUTO,))
        else:
            object.__setattr__(self, "keep_tokens", tuple(map(_read_share, texts)))
        if self.shares and min(self.shares) == 1:
            shown = ",".join(texts)
            raise InputError(f"--keep-tokens {shown}: drops no token; give a share below 1")
        check_at_least(self, 0, "token_epochs")
        is_share = 0 <= self.token_soft_start <= 1
        check_option(self, "token_soft_start", is_share, "a share from 0 to 1")
        check_option(self, "min_token_agreement", 0 <= self.min_token_agreement <= 100, "0 to 100")

    @property
    def is_wanted(self) -> bool:
        """Whether any tokens are dropped."""
        return len(self.keep_tokens) > 0

    @property
    def names(self) -> tuple[str, ...]:
        """What was given, as texts."""
        return tuple(one if isinstance(one, str) else f"{one:g}" for one in self.keep_tokens)

    @property
    def shares(self) -> tuple[float, ...]:
        """The shares that were given; none where they are to be chosen."""
        return tuple(share for share in self.keep_tokens if isinstance(share, float))


def _read_share(text: str) -> float:
    """A share of tokens.

    Raises:
        InputError: It is none.
    """
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise InputError(
            f"--keep-tokens {text.strip()}: give shares above 0, to 1, with commas between them, "
            f"or {AUTO}"
        )
    return share
