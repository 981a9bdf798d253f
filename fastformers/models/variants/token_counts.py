"""Count the tokens that a row has left after each layer of a model that drops or pools some.

    lengths of rows + settings of a model -> [token_counts] -> variants, graph, cost

How many stay is a function of the row's own length alone, so a row's score does not depend on the
rows beside it. The PyTorch model and the graph both count here, and so agree to the integer. This
is arithmetic on lengths; it knows nothing of torch, of models or of which tokens stay.

Shape suffixes: N rows, L layers that have a share.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# 0.6 * 5 is a hair above 3 in floating point, and 3 tokens are meant.
_ROUNDING = 1e-9


def count_kept_tokens(lengths_N: NDArray[np.int64], shares: Sequence[float]) -> NDArray[np.int64]:
    """Tokens that are left after each layer, (L, N), at least one.

    Args:
        lengths_N: Tokens that enter the first of these layers, special tokens included, at least 1.
        shares: Share (above 0, to 1) of the tokens that enter a layer, which leave it.
    """
    kept_LN = np.empty((len(shares), len(lengths_N)), np.int64)
    entering_N = np.asarray(lengths_N, np.int64)
    for layer, share in enumerate(shares):
        entering_N = np.maximum(1, np.ceil(share * entering_N - _ROUNDING).astype(np.int64))
        kept_LN[layer] = entering_N
    return kept_LN


def count_pooled_tokens(lengths_N: NDArray[np.int64], every: int) -> NDArray[np.int64]:
    """Tokens (N,) that are left when all but the first are pooled in groups of `every`.

    Args:
        lengths_N: Tokens of each row, special tokens included, at least 1.
        every: Tokens of a group; the last group of a row may have fewer.
    """
    pooled_N: NDArray[np.int64] = 1 + -(-(np.asarray(lengths_N, np.int64) - 1) // every)
    return pooled_N
