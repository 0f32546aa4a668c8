"""The models and the calibration set that most tests of methods use."""

import torch
from transformers import PreTrainedModel

from methods.base import CalibrationSet
from methods.conformance import FAMILIES as ALL_FAMILIES

FAMILIES = ("llama", "opt", "opt-post-norm")
"""Three that differ most in how their blocks are called."""


def make_model(family: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A tiny random model of any family of the contract suite, the same each time."""
    return ALL_FAMILIES[family].build(dtype)


def make_calibration(n_samples: int = 5, seqlen: int = 24) -> CalibrationSet:
    generator = torch.Generator().manual_seed(3)
    return CalibrationSet(torch.randint(0, 97, (n_samples, seqlen), generator=generator), "random", 3)
