"""Estimates time and memory of a plan before anything is run, to within a factor of two.

Time is computed from operations: two per weight and token for every pass through the decoder, at a fixed
share of the measured rate of a matrix product. Only the configuration of the model is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from methods.errors import InputError, PruningError
from suite.machine.memory_available import Available, Memory
from suite.planning.memory_needed import ModelShape, memory_of
from suite.planning.method_of_cell import solver_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from methods.base import Weights
    from methods.structure.decoder import DecoderLayer
    from suite.cell import Cell, PerplexitySpec, TaskSpec
    from suite.planning.resume import PlannedCell

DECODER_SHARE = 0.5
"""Share of the rate of a large square product that a whole decoder reaches (docs/performance.md)."""
FORWARDS = {
    "magnitude": 0,
    "wanda": 2,
    "ria": 2,
    "wanda-rgs": 5,
    "sparsegpt": 3,
    "dsnot": 2,
    "llm-barber": 5,
}
"""Passes over the calibration set, without those of the initial method; SparseGPT's X^T X counts as one.
Other methods are assumed to take two."""
CORPUS_TOKENS = {"wiki-sample": 135_000, "news-sample": 18_000, "wikitext2": 340_000, "c4": 1_000_000}
"""Approximate number of tokens of the held-out parts; c4-paper has 256 windows, a file one token per four
bytes."""
ITEM_TOKENS = {"offline_cloze": 60, "offline_next_paragraph": 350, "offline_agreement": 12}
"""Approximate number of tokens of one question with all its answers."""
MEMORY_RATE, FILE_RATE = 5e9, 2e9
"""Bytes per second when weights are read from memory, and from files."""
OTHER_TASK = (1000, 300)
"""Assumed number of questions, and of tokens per question, for all other tasks."""


@dataclass(frozen=True)
class Estimate:
    """Estimated time and memory of one cell.

    Attributes:
        seconds: time from the loaded model to the record.
        memory: memory of the host and the accelerator.
    """

    seconds: float
    memory: Memory

    @property
    def host_bytes(self) -> int:
        """Host memory in bytes."""
        return self.memory.host_bytes

    @property
    def device_bytes(self) -> int | None:
        """Accelerator memory in bytes; None without an accelerator."""
        return self.memory.device_bytes


def estimate(cell: Cell, device: torch.device, weights: Weights = "resident") -> Estimate | None:
    """Estimates `cell` on `device`; returns None if the model's shape is not known on this machine.

    Args:
        cell: the cell to estimate.
        device: the device on which layers compute.
        weights: where the layers are stored.
    """
    shape = _shape_of(cell.model, cell.revision, cell.trust_remote_code)
    if shape is None:
        return None
    itemsize = _itemsize(cell)
    rate = DECODER_SHARE * matrix_rate(cell.dtype, device)
    spec = cell.calibration
    calibration = 0 if spec is None else spec.n_samples * spec.seqlen
    text = sum(_tokens(text) for text in cell.perplexity)
    asked = sum(_task_tokens(task) for task in cell.tasks)
    judged = 50 * (cell.answers.max_new_tokens + 30) if cell.answers else 0
    body = 2 * shape.n_target_weights
    head = 2 * shape.hidden_size * shape.vocabulary
    flops = body * (calibration * _forwards(cell) + text + asked + 2 * judged) + head * (text + asked / 4)
    if cell.divergence and cell.prunes:
        flops += head * text
    n_bytes = shape.n_parameters * itemsize
    seconds = flops / rate + _weight_passes(cell) * n_bytes / MEMORY_RATE
    if weights == "onload":
        seconds += _model_visits(cell, shape) * n_bytes / FILE_RATE
    return Estimate(seconds, _memory_of(cell, shape, device, weights))


def memory_needed(cell: Cell, device: torch.device, weights: Weights = "resident") -> Memory | None:
    """Like `estimate`, but for memory only."""
    shape = _shape_of(cell.model, cell.revision, cell.trust_remote_code)
    return None if shape is None else _memory_of(cell, shape, device, weights)


def check_fits(
    planned: Sequence[PlannedCell],
    device: torch.device,
    available: Available,
    *,
    weights: Weights = "resident",
    warn: Callable[[str], None],
) -> None:
    """Refuses cells that cannot fit into memory before anything is loaded, and warns of those that may not.

    Args:
        planned: the plan; cells that will not run are ignored.
        device: the device on which layers compute.
        available: the available memory.
        weights: where the layers are stored.
        warn: called with a warning for the user.

    Raises:
        InputError: a cell needs at least more memory than available. The message names the cell, the memory
            it needs, and what it would need with one layer at a time.
    """
    warned = False
    for entry in planned:
        needed = memory_needed(entry.cell, device, weights) if entry.runs else None
        if needed is None:
            continue
        if (lack := available.lacks(needed, surely=True)) is not None:
            onload = memory_needed(entry.cell, device, "onload") if weights == "resident" else None
            advice = ""
            if onload is not None and available.lacks(onload) is None:
                advice = f"; with --placement onload it needs {onload.in_words()}"
            raise InputError(f"{entry.cell.label} needs at least {lack}{advice}")
        if not warned and (lack := available.lacks(needed)) is not None:
            warned = True
            warn(f"{entry.cell.label} may need {lack}")


def _memory_of(cell: Cell, shape: ModelShape, device: torch.device, weights: Weights) -> Memory:
    spec = cell.calibration
    of_group = _group_tokens(cell, shape)
    questions = [min(_task_tokens(task), of_group) for task in cell.tasks]
    gathers_gram, solver_bytes = solver_memory(cell)
    return memory_of(
        shape,
        itemsize=_itemsize(cell),
        calibration=0 if spec is None else spec.n_samples * spec.seqlen,
        carried=max([*map(_tokens, cell.perplexity), *questions], default=0),
        reference=sum(_tokens(text) for text in cell.perplexity) if cell.divergence else 0,
        on_gpu=device.type == "cuda",
        weights=weights,
        prunes=cell.prunes,
        starts_from_mask="initial" in cell.settings,
        gathers_gram=gathers_gram,
        solver_bytes=solver_bytes,
    )


def _forwards(cell: Cell) -> int:
    if not cell.prunes:
        return 0
    initial = cell.settings.get("initial")
    own = FORWARDS.get(cell.method, 2)
    return own + (FORWARDS.get(initial, 2) if isinstance(initial, str) else 0)


def _tokens(spec: PerplexitySpec) -> int:
    known = CORPUS_TOKENS.get(spec.corpus)
    if known is None:
        path = Path(spec.corpus).expanduser()
        known = path.stat().st_size // 4 if path.is_file() else 256 * spec.seqlen
    return known if spec.max_tokens is None else min(known, spec.max_tokens)


def _task_tokens(spec: TaskSpec) -> int:
    questions, each = OTHER_TASK
    if spec.name in ITEM_TOKENS:
        questions, each = 300, ITEM_TOKENS[spec.name]
    return min(questions, spec.limit or questions) * each


def _weight_passes(cell: Cell) -> int:
    """Returns how often all weights are read from memory, in addition to the passes over tokens."""
    passes = 4 + (cell.answers.max_new_tokens if cell.answers else 0)
    return passes + (8 * cell.speed.new_tokens if cell.speed else 0)


def _itemsize(cell: Cell) -> int:
    """Returns the size of one parameter in bytes."""
    return 4 if cell.dtype == "float32" else 2


def _group_tokens(cell: Cell, shape: ModelShape) -> int:
    """Returns the maximum number of tokens of questions that go through the layers together."""
    from suite.evaluation.scoring.decoder_pass import MAX_CARRIED_BYTES

    return MAX_CARRIED_BYTES // (shape.hidden_size * _itemsize(cell))


def _model_visits(cell: Cell, shape: ModelShape) -> int:
    """Returns how often all layers are read from the model's files: once per pass or generated token."""
    of_group = _group_tokens(cell, shape)
    groups = sum(ceil(_task_tokens(task) / of_group) for task in cell.tasks)
    visits = 3 + len(cell.perplexity) + groups
    visits += 2 * _forwards(cell) if cell.prunes else 0
    return visits + (cell.answers.max_new_tokens + 2 if cell.answers else 0)


@lru_cache(maxsize=8)
def matrix_rate(dtype: str, device: torch.device) -> float:
    """Returns the floating-point operations per second of a square product, measured once."""
    import torch

    from suite.evaluation.speed.reference_speed import matmul_rate

    return matmul_rate(getattr(torch, dtype), device)


@lru_cache(maxsize=32)
def _shape_of(name: str, revision: str | None, trust_remote_code: bool) -> ModelShape | None:
    """Returns the model's shape, from its configuration only; None if that is not on this machine."""
    from methods.structure.decoder import read_decoder
    from suite.models.loading import skeleton_of
    from suite.models.source import known_folder

    folder = known_folder(name, revision)
    if folder is None:
        return None
    try:
        model = skeleton_of(folder, name, trust_remote_code)
        decoder = read_decoder(model)
    except (InputError, PruningError):
        return None  # the run itself will report the error
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    of_layers = [sum(p.numel() for p in layer.module.parameters()) for layer in decoder.layers]
    grams = [[n**2 for _, _, n in _inputs(layer)] for layer in decoder.layers]
    return ModelShape(
        n_parameters=n_parameters,
        n_target_weights=sum(target.weight.numel() for _, _, target in decoder.targets()),
        n_largest_layer=max(of_layers),
        n_outside=n_parameters - sum(of_layers),
        hidden_size=model.config.get_text_config().hidden_size,
        vocabulary=model.get_input_embeddings().weight.shape[0],
        n_gram=max(map(sum, grams)),
        n_widest_gram=max(map(max, grams)),
    )


def _inputs(layer: DecoderLayer) -> set[tuple[str, int | None, int]]:
    """Returns the inputs of a layer that certainly differ: (block, expert, number of input features)."""
    return {
        (block.kind, target.expert, target.n_inputs)
        for block in layer.blocks
        for target in block.targets.values()
    }


__all__ = ["Estimate", "check_fits", "estimate", "matrix_rate", "memory_needed"]
