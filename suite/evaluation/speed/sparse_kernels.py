"""Runs a pruned model with real sparse products: PyTorch's semi-structured 2:4 kernels on NVIDIA GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from methods.errors import PruningError
from methods.placement.out_of_memory import is_out_of_memory
from methods.structure.decoder import read_decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_AMPERE = (8, 0)
_ALIGNED = {torch.float16: (32, 64), torch.bfloat16: (32, 64)}
"""Rows and columns must be multiples of these (PyTorch's SparseSemiStructuredTensor)."""


class KernelError(PruningError):
    """A sparse product differs from the masked dense one, or the kernel failed."""


def why_no_kernel(model: PreTrainedModel, pattern: str | None) -> str | None:
    """Returns why no sparse kernel supports this model on its device; None if one does."""
    if pattern is None or ":" not in pattern:
        return "unstructured zeros bring no speed here: there is no kernel for them"
    if pattern != "2:4":
        return f"no kernel for {pattern}"
    if model.device.type != "cuda":
        return "no 2:4 kernel on this device"
    if torch.cuda.get_device_capability(model.device) < _AMPERE:
        return "the GPU has no 2:4 units"
    if model.dtype not in _ALIGNED:
        return f"no 2:4 kernel for {str(model.dtype).removeprefix('torch.')}"
    if not _eligible(model):
        return "no target module has a shape that the 2:4 kernel takes"
    return None


@contextmanager
def sparse_products(model: PreTrainedModel) -> Iterator[int]:
    """Makes the target modules use 2:4 kernels while the body runs; yields the number of these modules.

    Raises:
        KernelError: a sparse product differs from the masked dense one, or the kernel failed.
    """
    before = {module: cast(nn.Parameter, module.weight) for module in _eligible(model)}
    try:
        for module, weight in before.items():
            module.weight = nn.Parameter(_packed(weight.detach()), requires_grad=False)
        yield len(before)
    finally:
        for module, weight in before.items():
            module.weight = weight


def _packed(weight: Tensor) -> Tensor:
    """Packs a weight for the kernel, and compares its product with the dense one."""
    try:
        sparse = torch.sparse.to_sparse_semi_structured(weight)
        _hold_against(sparse, weight)
    except (RuntimeError, NotImplementedError) as error:
        if is_out_of_memory(error) or isinstance(error, KernelError):
            raise
        # A build of torch may lack the kernel's library, or the kernel may not support the shape.
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise KernelError(f"the 2:4 kernel failed: {first}") from error
    return sparse


def _eligible(model: PreTrainedModel) -> list[nn.Linear]:
    """Returns the target modules that are plain Linears of a shape that the kernel supports."""
    rows, columns = _ALIGNED[model.dtype]
    weights = {target.name for _, _, target in read_decoder(model).targets()}
    return [
        module
        for name, module in model.named_modules()
        if type(module) is nn.Linear
        and name in weights
        and module.weight.shape[0] % rows == 0
        and module.weight.shape[1] % columns == 0
    ]


def _hold_against(sparse: Tensor, dense: Tensor) -> None:
    generator = torch.Generator(device=dense.device).manual_seed(0)
    x = torch.randn(64, dense.shape[1], device=dense.device, generator=generator).to(dense.dtype)
    expected, found = F.linear(x, dense).float(), F.linear(x, sparse).float()
    off = float((found - expected).abs().max())
    if not off <= 4 * torch.finfo(dense.dtype).eps * float(expected.abs().max()):
        raise KernelError(f"a 2:4 product is {off:.3g} off the masked dense one")


__all__ = ["KernelError", "sparse_products", "why_no_kernel"]
