"""The shapes of encoders that decide their speed, and those of the paper by name.

    [encoder_shapes] -> random_models -> bench --shape, ablate --shapes-only

These are numbers alone; this module knows nothing of torch or of weights.

Source:
    Kim and Hassan Awadalla 2020, arXiv:2010.13382, Table 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fastformers.export.encoder import Activation


@dataclass(frozen=True, kw_only=True)
class EncoderShape:
    """Everything of a BERT-like encoder that decides its speed.

    Attributes:
        num_layers: Transformer layers.
        width: Hidden width; a multiple of `head_width`.
        num_heads: Attention heads of each layer; fewer than width / head_width where it is pruned.
        head_width: Query, key and value width of a head.
        ffn_width: Feed-forward neurons of each layer.
        activation: Activation of the feed-forward.
        vocab_size: Number of token embeddings; that of BERT's uncased vocabulary by default.
        keep_shares: Share of the tokens entering a layer that leave it, from the first layer on;
            the other layers keep all.
    """

    num_layers: int
    width: int
    num_heads: int
    head_width: int
    ffn_width: int
    activation: Activation
    vocab_size: int = 30522
    keep_shares: tuple[float, ...] = ()

    def __str__(self) -> str:
        heads = f"{self.num_heads} heads of {self.head_width}"
        shape = f"{self.num_layers} layers x {self.width}, {heads}, FFN {self.ffn_width}"
        if not self.keep_shares:
            return shape
        return f"{shape}, keeping {show_shares(self.keep_shares)} of the tokens"


def show_shares(shares: Sequence[float]) -> str:
    """Shares of tokens as people read them, layer by layer: 80%, 60%."""
    return ", ".join(f"{100 * share:g}%" for share in shares)


BERT_BASE = EncoderShape(
    num_layers=12, width=768, num_heads=12, head_width=64, ffn_width=3072, activation="gelu"
)
# The paper swaps GELU for ReLU while it distills.
STUDENT = EncoderShape(
    num_layers=4, width=312, num_heads=12, head_width=26, ffn_width=1200, activation="relu"
)
# The paper's pruned students keep 9 heads and 900 neurons, and 8 and 600. Kernels like multiples of
# 16, so the neurons are rounded up: no more is cut than the paper cut.
PRUNED_QUARTER = replace(STUDENT, num_heads=9, ffn_width=912)
PRUNED_HALF = replace(STUDENT, num_heads=8, ffn_width=608)

ShapeName = Literal["student", "pruned", "bert-base"]
SHAPES_BY_NAME: dict[ShapeName, EncoderShape] = {
    "student": STUDENT,
    "pruned": PRUNED_HALF,
    "bert-base": BERT_BASE,
}
