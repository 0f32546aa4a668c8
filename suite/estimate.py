"""What a plan will take, worked out before anything is run: cells, time, memory. Right to a factor of two.

Time is counted in operations: two a weight and token for every pass through the decoder, at the rate of a
product measured here and the share of it that decoders reach. Of the model only the configuration is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from methods.errors import InputError, PruningError

if TYPE_CHECKING:
    import torch

    from suite.cell import Cell, PerplexitySpec, TaskSpec

DECODER_SHARE = 0.5
"""Of the rate of a large square product that a whole decoder reaches (docs/performance.md)."""
FORWARDS = {"magnitude": 0, "wanda": 2, "ria": 2, "sparsegpt": 3, "dsnot": 2, "llm-barber": 5}
"""Passes over the calibration set, beside those of the initial method; SparseGPT's X^T X counts as one. Other
methods are taken for two."""
CORPUS_TOKENS = {"wiki-sample": 135_000, "news-sample": 18_000, "wikitext2": 340_000, "c4": 1_000_000}
"""Of the held-out parts, about; c4-paper has 256 windows, a file a token every four bytes."""
ITEM_TOKENS = {"offline_cloze": 60, "offline_next_paragraph": 350, "offline_agreement": 12}
"""Of one question with all its answers, about."""
OTHER_TASK = (1000, 300)
"""Questions, and tokens of each, of a task of which nothing is known here."""
LIBRARIES_BYTES = 900 * 2**20
"""Of host memory that the imported libraries take."""
BATCH_BYTES = 512 * 2**20
"""Of working memory beside weights and hidden states: a batch, a layer's statistics."""


@dataclass(frozen=True)
class ModelShape:
    """What an estimate needs of a model.

    Attributes:
        n_parameters: all of them, tied ones once.
        n_target_weights: those in target modules, which every token is multiplied with.
        hidden_size: of a hidden state.
        vocabulary: of the logits.
    """

    n_parameters: int
    n_target_weights: int
    hidden_size: int
    vocabulary: int


@dataclass(frozen=True)
class Estimate:
    """What one cell will take, about.

    Attributes:
        seconds: from the loaded model to the record.
        host_bytes: of memory.
        device_bytes: of the accelerator's memory; None without one.
    """

    seconds: float
    host_bytes: int
    device_bytes: int | None


def estimate(cell: Cell, device: torch.device) -> Estimate | None:
    """What `cell` will take on `device`; None where the model's shape is not known on this machine."""
    shape = _shape_of(cell.model, cell.revision, cell.trust_remote_code)
    if shape is None:
        return None
    itemsize = 4 if cell.dtype == "float32" else 2
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
    host, on_device = _memory(shape, itemsize, calibration, text if cell.divergence else 0, device)
    return Estimate(flops / rate + _fixed_seconds(cell, shape, itemsize), host, on_device)


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


def _fixed_seconds(cell: Cell, shape: ModelShape, itemsize: int) -> float:
    """What does not grow with tokens: passes over all weights, at about 5 GB/s."""
    passes = 4 + (cell.answers.max_new_tokens if cell.answers else 0)
    passes += 8 * cell.speed.new_tokens if cell.speed else 0
    return passes * shape.n_parameters * itemsize / 5e9


def _memory(
    shape: ModelShape, itemsize: int, calibration: int, reference: int, device: torch.device
) -> tuple[int, int | None]:
    """Bytes of the host and of the accelerator."""
    weights = shape.n_parameters * itemsize
    hidden = 2 * calibration * shape.hidden_size * itemsize
    kept = reference * shape.hidden_size * itemsize
    if device.type == "cuda":
        # The dense weights and the dense hidden states wait on the host.
        return LIBRARIES_BYTES + weights + kept, weights + hidden + BATCH_BYTES
    return LIBRARIES_BYTES + BATCH_BYTES + 2 * weights + hidden + kept, None


@lru_cache(maxsize=8)
def matrix_rate(dtype: str, device: torch.device) -> float:
    """Floating-point operations per second of a square product, measured once."""
    import torch

    from suite.evaluation.efficiency import matmul_rate

    return matmul_rate(getattr(torch, dtype), device)


@lru_cache(maxsize=32)
def _shape_of(name: str, revision: str | None, trust_remote_code: bool) -> ModelShape | None:
    """The model's shape, from its configuration alone; None where that is not on this machine."""
    from methods.decoder import read_decoder
    from suite.models import known_folder, skeleton_of

    folder = known_folder(name, revision)
    if folder is None:
        return None
    try:
        model = skeleton_of(folder, name, trust_remote_code)
        targets = [target for _, _, target in read_decoder(model).targets()]
    except (InputError, PruningError):
        return None  # the run itself will say what is wrong
    return ModelShape(
        n_parameters=sum(parameter.numel() for parameter in model.parameters()),
        n_target_weights=sum(target.weight.numel() for target in targets),
        hidden_size=model.config.get_text_config().hidden_size,
        vocabulary=model.get_input_embeddings().weight.shape[0],
    )


__all__ = ["Estimate", "ModelShape", "estimate", "matrix_rate"]
