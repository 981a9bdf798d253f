"""How sure a graph is of a row: its margin, in log-odds.

    logits of the first graph -> [margins] -> rows that go on to the second graph

With one label of several, the margin is the log-odds of the predicted label: log p / (1 - p). A row
with a small p is the one to doubt (Chow's rule), however the others share the rest: the difference
of the two largest logits would take 0.2 against 0.1 and 0.67 against 0.33 for equally sure. With
two labels, it is that difference. Where several labels may hold, each is a decision of its own at a
logit of 0, and the margin is that of the least sure one. Log-odds do not round to 1 as
probabilities do. A margin depends on the logits of its own row alone, to the last bit. This module
knows nothing of graphs.

Shape suffixes: B rows of a batch, C outputs of a row.

Source:
    Chow 1970, IEEE Trans. Inf. Theory 16:41.
"""

import numpy as np
from numpy.typing import NDArray

from fastformers.arrays import Floats
from fastformers.inference.tasks import MULTI_LABEL_CLASSIFICATION, TEXT_CLASSIFICATION, Task

CASCADE_TASKS = (TEXT_CLASSIFICATION, MULTI_LABEL_CLASSIFICATION)


def margins(task: Task, logits_BC: Floats) -> NDArray[np.float64]:
    """Margin (B,) of each row; below 0 where a label of several has a probability below a half.

    Args:
        task: One of `CASCADE_TASKS`.
        logits_BC: Finite logits.
    """
    own_BC = np.array(logits_BC, np.float64, order="C")  # one layout: exp rounds alike in all
    if task == MULTI_LABEL_CLASSIFICATION:
        smallest_B: NDArray[np.float64] = np.abs(own_BC).min(axis=1)
        return smallest_B
    if own_BC.shape[1] == 1:
        return np.full(len(own_BC), np.inf)
    rows_B = np.arange(len(own_BC))
    best_B = own_BC.argmax(axis=1)
    largest_B = own_BC[rows_B, best_B]
    own_BC[rows_B, best_B] = -np.inf
    second_B = own_BC.max(axis=1)
    rest_B = np.log(np.exp(own_BC - second_B[:, None]).sum(axis=1))
    margins_B: NDArray[np.float64] = largest_B - second_B - rest_B
    return margins_B
