"""`python -m benchmarks.evaluation MODEL`: the time of evaluation, and the effect of batches on scores.

Speed: times perplexity, perplexity with divergence, and the latter layer by layer from the model's files,
compared with the model's own forward with all logits; the median of a few interleaved repeats. Then times the
questions of a task with the whole model, layer by layer, and with layers loaded in every batch. Batches:
scores the same questions in batches of several sizes, with our class and with lm-eval's own, and compares
them with fp32 one by one: by how much log-likelihoods change, and how many answers differ.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.machine import synchronize
from methods.base import Placement
from suite.cell import DENSE, Cell, PerplexitySpec, TaskSpec

if TYPE_CHECKING:
    from suite.models.loading import LoadedModel

Passes = dict[str, Callable[[], Any]]

TOKENS_PER_BATCH = 2048
"""Tokens per batch of `suite.evaluation.scoring.windows` on a CPU."""


@dataclass(frozen=True)
class Speed:
    """Median seconds of one pass over the repeats, and the ratio to the first pass of its kind."""

    dtype: str
    what: str
    seconds: float
    ratio: float


@dataclass(frozen=True)
class Scores:
    """One way of scoring a task's requests, compared with fp32 one by one.

    Attributes:
        dtype: dtype of the model.
        scorer: `ours` or `lm-eval`.
        batch: tokens per batch (ours), or requests per batch (lm-eval).
        largest: largest difference of a log-likelihood, in nats.
        other_answers: number of questions for which another answer scores highest.
        ties: number of questions for which two answers have exactly the same score.
        n: number of questions.
    """

    dtype: str
    scorer: str
    batch: int
    largest: float
    other_answers: int
    ties: int
    n: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints two tables, and writes all numbers to `--out`."""
    asked = _parser().parse_args(arguments)
    speeds = [row for dtype in asked.dtypes for row in speed(asked, dtype)]
    scores = batches(asked) if asked.limit else []
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    rows = {"speed": [asdict(row) for row in speeds], "batches": [asdict(row) for row in scores]}
    asked.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"{asked.windows} windows of {asked.seqlen} tokens of {Path(asked.corpus).name}, lower is better\n")
    print("| dtype | pass | seconds | ratio |\n|---|---|---|---|")
    for row in speeds:
        print(f"| {row.dtype} | {row.what} | {row.seconds:.2f} | {row.ratio:.2f} |")
    if scores:
        print(f"\n{asked.task}, against fp32 one by one, lower is better\n")
        print(
            "| dtype | scorer | batch | largest difference, nats | other answers | ties |\n"
            "|---|---|---|---|---|---|"
        )
    for found in scores:
        print(
            f"| {found.dtype} | {found.scorer} | {found.batch} | {found.largest:.2g} | "
            f"{found.other_answers} of {found.n} | {found.ties} of {found.n} |"
        )


def speed(asked: argparse.Namespace, dtype: str) -> list[Speed]:
    """Times passes over windows, then over questions."""
    from suite.models.layered import load_layered_model
    from suite.models.loading import load_model

    loaded = load_model(asked.model, dtype=dtype, device=asked.device)
    cell = Cell(model=asked.model, dtype=dtype, method=DENSE)
    layered = load_layered_model(cell, None).staged(None, torch.device(asked.device))
    kinds = [_windows(asked, loaded, layered)]
    if asked.limit:
        kinds.append(_questions(asked, loaded, layered))
    rows = []
    for passes in kinds:
        spent: dict[str, list[float]] = {what: [] for what in passes}
        # Interleaved, so that a slow moment affects all passes alike.
        for _ in range(asked.repeats):
            for what, run in passes.items():
                spent[what].append(_seconds(run, loaded.model.device))
        medians = {what: statistics.median(seconds) for what, seconds in spent.items()}
        first = next(iter(medians.values()))
        rows += [Speed(dtype, what, seconds, seconds / first) for what, seconds in medians.items()]
    return rows


def _windows(asked: argparse.Namespace, loaded: LoadedModel, layered: LoadedModel) -> Passes:
    from suite.data.corpora import evaluation_windows
    from suite.evaluation.scoring.windows import score_windows

    assert loaded.tokenizer is not None
    spec = PerplexitySpec(corpus=asked.corpus, seqlen=asked.seqlen, max_tokens=asked.windows * asked.seqlen)
    ids = evaluation_windows(spec, loaded.tokenizer).input_ids
    size = max(1, TOKENS_PER_BATCH // asked.seqlen)
    hidden = score_windows(loaded.model, ids, keep_hidden=True).hidden

    @torch.inference_mode()
    def forward() -> None:
        for batch in torch.split(ids, size):
            loaded.model(input_ids=batch.to(loaded.model.device), use_cache=False)

    return {
        "forward with all logits": forward,
        "perplexity": lambda: score_windows(loaded.model, ids),
        "perplexity and divergence": lambda: score_windows(loaded.model, ids, dense_hidden=hidden),
        "the same layer by layer": lambda: score_windows(
            layered.model, ids, placement=layered.placement, dense_hidden=hidden
        ),
    }


def _questions(asked: argparse.Namespace, loaded: LoadedModel, layered: LoadedModel) -> Passes:
    from methods.placement.onloaded_forward import own_forward
    from suite.evaluation.lm_eval_tasks.loading import load_task
    from suite.evaluation.lm_eval_tasks.quiet import quiet_lm_eval
    from suite.evaluation.lm_eval_tasks.scoring_model import ScoringModel

    task = load_task(TaskSpec(name=asked.task, limit=asked.limit))

    def ask(model: LoadedModel, placement: Placement) -> None:
        assert model.tokenizer is not None
        with quiet_lm_eval():
            _scores(task, ScoringModel(model.model, model.tokenizer, placement=placement), asked.limit)

    def visiting_each_batch() -> None:
        with own_forward(layered.model, layered.placement):
            ask(layered, Placement())

    return {
        f"{asked.limit} questions of {asked.task}": lambda: ask(loaded, loaded.placement),
        "they layer by layer": lambda: ask(layered, layered.placement),
        "they with all layers in every batch": visiting_each_batch,
    }


def batches(asked: argparse.Namespace) -> list[Scores]:
    """Scores the task's requests in several ways."""
    from suite.evaluation.lm_eval_tasks.loading import load_task
    from suite.evaluation.lm_eval_tasks.quiet import quiet_lm_eval
    from suite.models.loading import load_model

    task = load_task(TaskSpec(name=asked.task, limit=asked.limit))
    rows = []
    truth: list[list[float]] | None = None
    for dtype in ("float32", *(d for d in asked.dtypes if d != "float32")):
        loaded = load_model(asked.model, dtype=dtype, device=asked.device)
        with quiet_lm_eval():
            if truth is None:
                truth = _scores(task, _ours(loaded, 1), asked.limit)
            for batch in asked.batches:
                found = _scores(task, _ours(loaded, batch), asked.limit)
                rows.append(_compared(dtype, "ours", batch, truth, found))
            for requests in (1, 8, 32):
                found = _scores(task, _lm_eval(loaded, requests), asked.limit)
                rows.append(_compared(dtype, "lm-eval", requests, truth, found))
    return rows


def _ours(loaded: LoadedModel, tokens_per_batch: int) -> Any:
    from suite.evaluation.lm_eval_tasks.scoring_model import ScoringModel

    assert loaded.tokenizer is not None
    scoring = ScoringModel(loaded.model, loaded.tokenizer)
    scoring.scorer.tokens_per_batch = tokens_per_batch
    return scoring


def _lm_eval(loaded: LoadedModel, requests: int) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=requests)


def _scores(task: Any, scorer: Any, limit: int) -> list[list[float]]:
    """Returns, for each question, the log-likelihood of each answer."""
    (built,) = task.tree["tasks"].values()
    built.build_all_requests(limit=limit, rank=0, world_size=1)
    by_question: dict[int, list[float]] = {}
    answers = scorer.loglikelihood(built.instances, disable_tqdm=True)
    for instance, (value, _) in zip(built.instances, answers, strict=True):
        by_question.setdefault(instance.doc_id, []).append(value)
    return list(by_question.values())


def _compared(
    dtype: str, scorer: str, batch: int, truth: list[list[float]], found: list[list[float]]
) -> Scores:
    pairs = list(zip(truth, found, strict=True))
    return Scores(
        dtype=dtype,
        scorer=scorer,
        batch=batch,
        largest=max(abs(a - b) for one, other in pairs for a, b in zip(one, other, strict=True)),
        other_answers=sum(one.index(max(one)) != other.index(max(other)) for one, other in pairs),
        ties=sum(other.count(max(other)) > 1 for _, other in pairs),
        n=len(pairs),
    )


def _seconds(run: Callable[[], Any], device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - start


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--corpus", default="wiki-sample")
    parser.add_argument("--seqlen", type=int, default=512)
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--task", default="offline_next_paragraph")
    parser.add_argument("--limit", type=int, default=60, help="number of questions; 0 skips the batches")
    parser.add_argument("--batches", type=int, nargs="+", default=[256, 2048, 8192])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("runs/evaluation.json"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
