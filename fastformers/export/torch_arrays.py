"""Copy parts of a PyTorch model into the arrays of an encoder.

    teacher (PyTorch) -> read_encoder -> [torch_arrays] -> EncoderWeights

This module knows layers of PyTorch, not architectures.
"""

import numpy as np
import torch
from torch import nn

from fastformers.arrays import Floats
from fastformers.export.encoder import Linear, Norm


def copy_floats(tensor: torch.Tensor) -> Floats:
    """Copy a tensor of any precision to float32."""
    return np.array(tensor.detach().float().numpy(), order="C")


def copy_linear(module: nn.Linear) -> Linear:
    """Copy a projection; its bias is zeros where the module has none."""
    weight = copy_floats(module.weight.T)
    has_bias = module.bias is not None
    bias = copy_floats(module.bias) if has_bias else np.zeros(weight.shape[1], np.float32)
    return Linear(weight=weight, bias=bias)


def copy_norm(module: nn.LayerNorm) -> Norm:
    """Copy a layer normalization; its bias is zeros where the module has none."""
    weight = copy_floats(module.weight)
    bias = np.zeros_like(weight) if module.bias is None else copy_floats(module.bias)
    return Norm(weight=weight, bias=bias, epsilon=float(module.eps))
