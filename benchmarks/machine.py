"""Measures the speed of the machine: the rates of products, of memory and of a model's own forward."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from methods.engine.hidden_states import at_rest
from methods.structure.decoder import read_decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS_A_BATCH = {"cpu": (512, 2048, 4096), "cuda": (2048, 8192, 16384)}
"""Batch sizes in tokens that are tried for the forward."""

_SQUARE = {"cpu": 2048, "cuda": 8192}
_COPIED_BYTES = {"cpu": 2**28, "cuda": 2**30}
_SMALL_MODEL = 10**7
"""Below this many parameters a run only tests the code, and products of full size would take most of it."""
_SMALL_SQUARE = 256
_SMALL_COPY = 2**20


@dataclass(frozen=True)
class MachineRates:
    """All rates that floors are computed from, at one moment.

    Attributes:
        model_flops: FLOPs per second of a square product in the model's dtype.
        fp32_flops: the same in fp32.
        accumulated_flops: the same in the lowest precision whose products the backend accumulates in fp32:
            the model's dtype on a GPU; fp32 on a CPU, where PyTorch has no such product.
        bytes_per_second: bytes read and written by a copy.
        layer_tokens_per_second: tokens through one decoder layer, in the decoder's own forward.
        batch_size: sequences per batch of that forward, the best of those tried.
    """

    model_flops: float
    fp32_flops: float
    accumulated_flops: float
    bytes_per_second: float
    layer_tokens_per_second: float
    batch_size: int


def measure(
    model: PreTrainedModel, n_samples: int, seqlen: int, *, batch_sizes: Sequence[int] = ()
) -> MachineRates:
    """Measures all rates, on the model's device and in its dtype.

    Args:
        model: dense model on the device; some layers of a larger model suffice.
        n_samples: number of sequences, an upper limit for the batch size.
        seqlen: tokens per sequence.
        batch_sizes: batch sizes to try for the forward; by default a few.
    """
    device, small = model.device, sum(p.numel() for p in model.parameters()) < _SMALL_MODEL
    side = _SMALL_SQUARE if small else _SQUARE[device.type]
    model_flops = product_rate(model.dtype, device, side)
    fp32_flops = model_flops if model.dtype == torch.float32 else product_rate(torch.float32, device, side)
    tried = batch_sizes or sorted(
        {min(n_samples, max(1, tokens // seqlen)) for tokens in TOKENS_A_BATCH[device.type]}
    )
    rate, batch_size = max((forward_rate(model, size, seqlen), size) for size in tried)
    return MachineRates(
        model_flops=model_flops,
        fp32_flops=fp32_flops,
        accumulated_flops=model_flops if device.type == "cuda" else fp32_flops,
        bytes_per_second=copy_rate(device, _SMALL_COPY if small else _COPIED_BYTES[device.type]),
        layer_tokens_per_second=rate,
        batch_size=batch_size,
    )


def measuring(model: PreTrainedModel, n_samples: int, seqlen: int) -> Callable[[], MachineRates]:
    """Finds the best batch size now; returns a function that calls `measure` with only that one."""
    batch_size = measure(model, n_samples, seqlen).batch_size
    return partial(measure, model, n_samples, seqlen, batch_sizes=(batch_size,))


def product_rate(dtype: torch.dtype, device: torch.device, side: int) -> float:
    """FLOPs per second of a product of two square matrices of random numbers."""
    square = torch.randn(side, side, device=device).to(dtype)
    out = torch.empty_like(square)
    return 2 * side**3 / best_seconds(lambda: torch.mm(square, square, out=out), device, tries=4)


def copy_rate(device: torch.device, n_bytes: int) -> float:
    """Bytes read and written per second by a copy within the device's memory."""
    source = torch.zeros(n_bytes, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return 2 * n_bytes / best_seconds(lambda: target.copy_(source), device, tries=4)


def forward_rate(model: PreTrainedModel, batch_size: int, seqlen: int) -> float:
    """Tokens per second through one decoder layer, from a forward of the decoder without its head."""
    n_layers = len(read_decoder(model).layers)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    tokens = torch.randint(vocabulary, (batch_size, seqlen), device=model.device)
    decoder = model.base_model
    with at_rest(model):
        seconds = best_seconds(lambda: decoder(input_ids=tokens, use_cache=False), model.device, tries=2)
    return tokens.numel() * n_layers / seconds


def best_seconds(work: Callable[[], object], device: torch.device, *, tries: int) -> float:
    """Seconds of the fastest of a few runs, after a warm-up run."""
    work()
    seconds = []
    for _ in range(tries):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def synchronize(device: torch.device) -> None:
    """Waits until the device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


__all__ = [
    "MachineRates",
    "best_seconds",
    "copy_rate",
    "forward_rate",
    "measure",
    "measuring",
    "product_rate",
    "synchronize",
]
