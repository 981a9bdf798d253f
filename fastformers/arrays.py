"""Types of arrays that all parts share: weights, logits, vectors and importances are float32.

This module knows nothing of what the numbers mean; names of arrays carry their shapes.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
