"""`python -m benchmarks.precision MODEL`: how decisions of pruning in bf16 differ from those in fp32.

Each method prunes the model in both dtypes with the same calibration tokens. The masks are compared, and the
perplexity of each pruned model is measured in fp32, so that it differs only by the decisions. Both are
measured on the same windows, so the difference of their log-perplexities has a paired standard error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import exp, expm1, prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.rows import described, setting
from benchmarks.timing import restoring
from methods.errors import InputError
from methods.masks.pattern import parse_pattern
from methods.registry import build
from methods.structure.decoder import read_decoder

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from methods.base import CalibrationSet, PruneResult

METHODS = ("magnitude", "wanda", "sparsegpt", "llm-barber")


@dataclass(frozen=True)
class Protocol:
    """The protocol that rows were measured with.

    Attributes:
        perplexity: name of the protocol (docs/protocols.md).
        n_windows: number of evaluation windows.
        window_tokens: tokens per window.
        calibration: source of the calibration tokens.
        n_samples: number of calibration sequences.
        sample_tokens: tokens per calibration sequence.
        n_weights: number of weights that both masks cover.
        better: which direction of perplexity is better.
    """

    perplexity: str
    n_windows: int
    window_tokens: int
    calibration: str
    n_samples: int
    sample_tokens: int
    n_weights: int
    better: str = "lower"

    def __str__(self) -> str:
        return (
            f"perplexity: {self.perplexity}, n = {self.n_windows} windows of {self.window_tokens} tokens, in "
            f"fp32, {self.better} is better; calibration: {self.calibration}, {self.n_samples} x "
            f"{self.sample_tokens} = {self.n_samples * self.sample_tokens} tokens; masks of "
            f"{self.n_weights} weights"
        )


@dataclass(frozen=True)
class Precision:
    """The results of one method in both dtypes.

    Attributes:
        method: its name.
        pattern: the pattern that it pruned to.
        agreement: share of weights on which both masks agree.
        perplexity_fp32: pruned in fp32; lower is better.
        perplexity_bf16: pruned in bf16, measured in fp32; lower is better.
        log_difference: log-perplexity in bf16 minus that in fp32: the mean over windows of the difference of
            their losses; if it is below 0, bf16 is better.
        standard_error: of that mean, std / sqrt(n windows); None if there is a single window.
    """

    method: str
    pattern: str
    agreement: float
    perplexity_fp32: float
    perplexity_bf16: float
    log_difference: float
    standard_error: float | None

    @property
    def change(self) -> float:
        """Relative change of the perplexity."""
        return expm1(self.log_difference)

    @property
    def change_error(self) -> float | None:
        """The standard error of `change`, to first order."""
        return None if self.standard_error is None else exp(self.log_difference) * self.standard_error


def compared(
    method: str, pattern: str, masks: tuple[PruneResult, PruneResult], losses: tuple[Tensor, Tensor]
) -> Precision:
    """Compares the two dtypes.

    Args:
        method: its name.
        pattern: the pattern that it pruned to.
        masks: results of pruning in fp32 and in bf16.
        losses: `[n_windows]` each, in nats, of the same windows.

    Raises:
        InputError: a loss is not finite.
    """
    from suite.results.statistics.single import mean_stderr

    in_fp32, in_bf16 = (losses_W.double() for losses_W in losses)
    difference = mean_stderr((in_bf16 - in_fp32).tolist())
    if difference.value is None:
        raise InputError(f"{method} {pattern}: losses are {difference.status}")
    return Precision(
        method,
        pattern,
        agreement(*masks),
        float(in_fp32.mean().exp()),
        float(in_bf16.mean().exp()),
        difference.value,
        difference.stderr,
    )


def agreement(one: PruneResult, other: PruneResult) -> float:
    """Share of all target weights that both keep or both prune.

    Raises:
        InputError: they belong to different models.
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
        protocol, rows = _measured(asked)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    made_on = setting(torch.device("cpu"))
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "protocol": asdict(protocol),
        "rows": [asdict(row) for row in rows],
        "setting": asdict(made_on),
    }
    asked.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(described(made_on), "", protocol, "", _markdown(rows), sep="\n")
    return 0


def _markdown(rows: Sequence[Precision]) -> str:
    head = ("method", "pattern", "masks agree", "perplexity fp32", "perplexity bf16")
    head += ("log-perplexity, bf16 - fp32 (± standard error)", "change of perplexity (± standard error)")
    cells = [head, ("---",) * len(head)]
    for row in rows:
        error = "n/a" if row.standard_error is None else f"{row.standard_error:.5f}"
        relative = "n/a" if row.change_error is None else f"{row.change_error:.2%}"
        cells.append(
            (
                row.method,
                row.pattern,
                f"{row.agreement:.2%}",
                f"{row.perplexity_fp32:.2f}",
                f"{row.perplexity_bf16:.2f}",
                f"{row.log_difference:+.5f} ± {error}",
                f"{row.change:+.2%} ± {relative}",
            )
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


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


def _measured(asked: argparse.Namespace) -> tuple[Protocol, list[Precision]]:
    from suite.cell import CalibrationSpec, PerplexitySpec
    from suite.data.corpora import calibration_set, evaluation_windows
    from suite.evaluation.scoring.windows import score_windows
    from suite.models.loading import load_model

    loaded = load_model(asked.model, dtype="float32")
    model, lower = loaded.model, load_model(asked.model, dtype="bfloat16").model
    spec = CalibrationSpec(source=asked.calibration, n_samples=asked.n_samples, seqlen=asked.seqlen)
    calibration = calibration_set(spec, loaded.tokenizer)
    evaluated = PerplexitySpec(
        corpus=asked.evaluation, seqlen=asked.seqlen, max_tokens=asked.windows * asked.seqlen
    )
    windows = evaluation_windows(evaluated, loaded.tokenizer)
    restores = (restoring(model), restoring(lower))
    protocol = Protocol(
        perplexity=_named(windows.protocol, asked.evaluation),
        n_windows=windows.input_ids.shape[0],
        window_tokens=windows.input_ids.shape[1],
        calibration=_named(asked.calibration, asked.calibration),
        n_samples=calibration.n_samples,
        sample_tokens=calibration.seqlen,
        n_weights=sum(prod(target.shape) for _, _, target in read_decoder(model).targets()),
    )
    rows = []
    for method in asked.methods:
        for pattern in asked.patterns:
            for restore in restores:
                restore()
            in_fp32 = _pruned(model, method, pattern, calibration)
            losses_fp32 = score_windows(model, windows.input_ids).nll
            in_bf16 = _pruned(lower, method, pattern, calibration)
            # Converted to fp32, so that both are measured in the same dtype.
            _write(model, lower)
            losses_bf16 = score_windows(model, windows.input_ids).nll
            rows.append(compared(method, pattern, (in_fp32, in_bf16), (losses_fp32, losses_bf16)))
            print(rows[-1], file=sys.stderr)
    return protocol, rows


def _named(text: str, source: str) -> str:
    """Replaces a file in `text` by its name, because its folder is irrelevant."""
    return text.replace(source, Path(source).name) if Path(source).is_file() else text


def _pruned(model: PreTrainedModel, method: str, pattern: str, calibration: CalibrationSet) -> PruneResult:
    return build(method).prune(model, parse_pattern(pattern), calibration)


def _write(model: PreTrainedModel, weights_of: PreTrainedModel) -> None:
    for name, parameter in model.named_parameters():
        parameter.detach().copy_(weights_of.get_parameter(name))


if __name__ == "__main__":
    sys.exit(main())
