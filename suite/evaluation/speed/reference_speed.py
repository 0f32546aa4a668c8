"""Measures the speed of the machine, as a reference for the times in a record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from methods.base import CalibrationSet, PhaseClock, Placement
from methods.engine.hidden_states import LayerStream, at_rest
from methods.placement.layer_loading import residing
from methods.structure.decoder import DecoderLayer, n_positions, read_decoder
from suite.machine.environment import native_bf16
from suite.results.records.record import ReferenceSpeed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MATRIX_SIZE, SMALL_SIZE = 2048, 512
"""Size of the square product; the small one is for dtypes that the machine emulates, which is slow."""
SEQLEN = 512


def measure_reference_speed(model: PreTrainedModel, placement: Placement) -> ReferenceSpeed:
    """Measures the model's own decoder forward on one batch of random tokens, and a square product.

    Both are the best of a few tries in the model's dtype, on its device. The time to load onloaded layers is
    not counted.
    """
    seqlen = min(SEQLEN, n_positions(model) or SEQLEN)
    shape = (placement.batch_size_for(seqlen), seqlen)
    batch = CalibrationSet(
        torch.randint(model.get_input_embeddings().weight.shape[0], shape), "random tokens"
    )
    decoder = read_decoder(model)
    one_batch = replace(placement, batch_size=batch.n_samples)
    with at_rest(model), residing(model, decoder, one_batch) as residence:
        stream = LayerStream.of_calibration(model, decoder, batch, residence)
        if placement.weights == "resident":
            seconds = _best(partial(_forward, stream, decoder.layers), residence.device, tries=2)
        else:
            seconds = 0.0
            for layer in decoder.layers:
                with residence.loaded(layer, read_only=True):
                    seconds += _best(partial(_forward, stream, [layer]), residence.device, tries=2)
    return ReferenceSpeed(
        matmul_flops_per_second=matmul_rate(model.dtype, residence.device),
        forward_tokens_per_second=batch.input_ids.numel() / seconds,
        batch_size=batch.n_samples,
        seqlen=seqlen,
    )


def _forward(stream: LayerStream, layers: Sequence[DecoderLayer]) -> None:
    """Runs the stream's only batch through `layers`, and leaves the stream unchanged."""
    entry = stream.hidden[0]
    for layer in layers:
        stream.hidden[0] = stream.forward(layer, 0)
    stream.hidden[0] = entry


def matmul_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Returns the floating-point operations per second of a square product, the best of a few tries."""
    emulated = device.type == "cpu" and dtype.itemsize < 4
    native = not emulated or (dtype == torch.bfloat16 and native_bf16(device))
    size = MATRIX_SIZE if native else SMALL_SIZE
    square = torch.randn(size, size, device=device).to(dtype)
    return 2 * size**3 / _best(lambda: torch.mm(square, square), device, tries=4)


def _best(work: Callable[[], object], device: torch.device, *, tries: int) -> float:
    """Returns the seconds of the fastest of a few runs."""
    seconds = []
    for _ in range(tries):
        clock = PhaseClock(device=device)
        with clock.phase("work"):
            work()
        seconds.append(clock.seconds["work"])
    return min(seconds)


__all__ = ["matmul_rate", "measure_reference_speed"]
