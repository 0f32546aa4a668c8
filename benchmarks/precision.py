"""`python -m benchmarks.precision MODEL`: what pruning in bf16 decides otherwise than in fp32.

Each method prunes the model in both types on the same calibration tokens. The masks are held against each
other, and each pruned model's perplexity is measured in fp32, so that what differs is what was decided.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.rows import described, setting
from methods.errors import InputError
from methods.pattern import parse_pattern
from methods.registry import build

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from methods.base import CalibrationSet, PruneResult

METHODS = ("magnitude", "wanda", "sparsegpt", "llm-barber")


@dataclass(frozen=True)
class Precision:
    """One method in both types.

    Attributes:
        method: its name.
        pattern: what it pruned to.
        agreement: share of weights on which both masks agree.
        perplexity_fp32: pruned in fp32.
        perplexity_bf16: pruned in bf16, measured in fp32.
    """

    method: str
    pattern: str
    agreement: float
    perplexity_fp32: float
    perplexity_bf16: float

    @property
    def change(self) -> float:
        """Of the perplexity, relative."""
        return self.perplexity_bf16 / self.perplexity_fp32 - 1


def agreement(one: PruneResult, other: PruneResult) -> float:
    """Share of all target weights that both keep or both prune.

    Raises:
        InputError: they are of different models.
    """
    if one.keep.keys() != other.keep.keys():
        raise InputError("masks of different models cannot be compared")
    differing = total = 0
    for name, mask in one.keep.items():
        bits, others = (np.frombuffer(m.bits, dtype=np.uint8) for m in (mask, other.keep[name]))
        differing += int(np.bitwise_count(bits ^ others).sum())
        total += mask.numel
    return 1 - differing / total


def main(arguments: list[str] | None = None) -> int:
    """Runs the command."""
    import torch

    asked = _parser().parse_args(arguments)
    try:
        rows = _compared(asked)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    made_on = setting(torch.device("cpu"))
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"rows": [asdict(row) for row in rows], "setting": asdict(made_on)}, indent=2)
    asked.out.write_text(text, encoding="utf-8")
    print(described(made_on), "", sep="\n")
    print("| method | pattern | masks agree | perplexity fp32 | perplexity bf16 | change |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in rows:
        print(
            f"| {row.method} | {row.pattern} | {row.agreement:.2%} | {row.perplexity_fp32:.2f} | "
            f"{row.perplexity_bf16:.2f} | {row.change:+.2%} |"
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--patterns", nargs="+", default=["0.5"])
    parser.add_argument("--n-samples", type=int, default=16)
    parser.add_argument("--seqlen", type=int, default=512)
    parser.add_argument("--calibration", default="wiki-sample")
    parser.add_argument("--evaluation", default="wiki-sample")
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("runs/precision.json"))
    return parser


def _compared(asked: argparse.Namespace) -> list[Precision]:
    from suite.cell import CalibrationSpec, PerplexitySpec
    from suite.corpora import calibration_set, evaluation_windows
    from suite.models import load_model

    loaded = load_model(asked.model, dtype="float32")
    lower = load_model(asked.model, dtype="bfloat16").model
    spec = CalibrationSpec(source=asked.calibration, n_samples=asked.n_samples, seqlen=asked.seqlen)
    calibration = calibration_set(spec, loaded.tokenizer)
    evaluated = PerplexitySpec(
        corpus=asked.evaluation, seqlen=asked.seqlen, max_tokens=asked.windows * asked.seqlen
    )
    windows = evaluation_windows(evaluated, loaded.tokenizer).input_ids
    dense = {id(model): _copy(model) for model in (loaded.model, lower)}
    rows = []
    for method in asked.methods:
        for pattern in asked.patterns:
            for model in (loaded.model, lower):
                _write(model, dense[id(model)])
            in_fp32 = _pruned(loaded.model, method, pattern, calibration)
            perplexity_fp32 = _perplexity(loaded.model, windows)
            in_bf16 = _pruned(lower, method, pattern, calibration)
            _write(loaded.model, {name: value.float() for name, value in _copy(lower).items()})
            row = Precision(
                method,
                pattern,
                agreement(in_fp32, in_bf16),
                perplexity_fp32,
                _perplexity(loaded.model, windows),
            )
            rows.append(row)
            print(row, file=sys.stderr)
    return rows


def _pruned(model: PreTrainedModel, method: str, pattern: str, calibration: CalibrationSet) -> PruneResult:
    return build(method).prune(model, parse_pattern(pattern), calibration)


def _perplexity(model: PreTrainedModel, windows: Tensor) -> float:
    from suite.evaluation.perplexity import window_losses

    return float(window_losses(model, windows).mean().exp())


def _copy(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def _write(model: PreTrainedModel, weights: dict[str, Any]) -> None:
    for name, parameter in model.named_parameters():
        parameter.detach().copy_(weights[name])


if __name__ == "__main__":
    sys.exit(main())
