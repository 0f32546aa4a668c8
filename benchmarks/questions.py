"""`python -m benchmarks.questions MODEL`: seconds for the options of questions, beside lm-eval's own class.

Questions are cut from text: a context, and several continuations of it, the right one and those of other
places. Both classes score the same requests on the same model in turn, lm-eval's at several batch sizes, of
which the fastest counts. Differences are per scored token, in nats; an answer differs if another option is
likeliest, and is a tie if the two are as close as the difference allowed.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.machine import synchronize

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from suite.models.loading import LoadedModel

BATCH_SIZES = (8, 16, 32)
TOLERANCE = 1e-4
"""Nats per scored token."""
SEPARATOR = "\n\n"


@dataclass(frozen=True)
class Shape:
    """A kind of question; lengths are in words, as tokens differ between models.

    Attributes:
        name: name in the table.
        n_options: options per question.
        context: words of a context.
        option: smallest and largest number of words of an option.
        n_examples: questions with their right answers before each question, drawn anew for each.
        same_examples: whether all questions have the same examples instead.
    """

    name: str
    n_options: int
    context: tuple[int, int]
    option: tuple[int, int]
    n_examples: int = 0
    same_examples: bool = False


SHAPES = (
    Shape("four options", 4, (24, 48), (4, 8)),
    Shape("two options", 2, (72, 80), (4, 8)),
    Shape("four options, 5 examples", 4, (24, 48), (4, 8), n_examples=5),
    Shape("four options, the same 5 examples", 4, (24, 48), (4, 8), n_examples=5, same_examples=True),
)


@dataclass(frozen=True)
class Row:
    """One kind of question in one dtype.

    Attributes:
        dtype: dtype of the model.
        questions: name of the kind.
        n: number of questions.
        tokens: tokens that lm-eval's class reads, without padding.
        read: tokens that ours reads.
        seconds: median over the repeats, ours.
        lm_eval: the same of lm-eval's own class, at its fastest batch size.
        batch: that batch size.
        ratio: median of the ratios of the repeats.
        largest: largest difference of a log-likelihood, in nats per scored token.
        other_answers: questions with another likeliest option.
        ties: how many of those have two options within the tolerance.
    """

    dtype: str
    questions: str
    n: int
    tokens: int
    read: int
    seconds: float
    lm_eval: float
    batch: int
    ratio: float
    largest: float
    other_answers: int
    ties: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures each kind of question in each dtype; prints a row after each, and writes them to `--out`."""
    from suite.models.loading import load_model

    asked = _parser().parse_args(arguments)
    print(
        "| dtype | questions | n | tokens | read | s | lm-eval, s | batch | ratio | largest | other | ties |"
    )
    print(f"|{'---|' * 12}")
    rows = []
    for dtype in asked.dtypes:
        loaded = load_model(asked.model, dtype=dtype, device=asked.device)
        for shape in SHAPES:
            if asked.only and shape.name not in asked.only:
                continue
            row = measure(loaded, dtype, shape, asked.questions, asked.repeats)
            rows.append(asdict(row))
            print(
                f"| {row.dtype} | {row.questions} | {row.n} | {row.tokens} | {row.read} "
                f"| {row.seconds:.1f} | {row.lm_eval:.1f} | {row.batch} | {row.ratio:.2f} "
                f"| {row.largest:.1g} | {row.other_answers} | {row.ties} |",
                flush=True,
            )
            asked.out.parent.mkdir(parents=True, exist_ok=True)
            asked.out.write_text(json.dumps(rows, indent=1) + "\n")


def measure(loaded: LoadedModel, dtype: str, shape: Shape, n: int, repeats: int) -> Row:
    """Times both classes on `n` questions of one kind, in turn."""
    from lm_eval.models.huggingface import HFLM

    from suite.evaluation.lm_eval_tasks.quiet import quiet_lm_eval
    from suite.evaluation.lm_eval_tasks.scoring_model import ScoringModel
    from suite.evaluation.scoring.shared_prefixes import shared_rows

    requests = questions(shape, n)
    with quiet_lm_eval():
        theirs = {
            size: HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=size)
            for size in BATCH_SIZES
        }
        some = requests[: 24 * shape.n_options]
        batch = min(BATCH_SIZES, key=lambda size: _timed(theirs[size], some)[0])
        pairs = []
        for _ in range(repeats):
            assert loaded.tokenizer is not None
            ours = ScoringModel(loaded.model, loaded.tokenizer)
            pairs.append((_timed(ours, requests), _timed(theirs[batch], requests)))
        grouped = ours._grouped(requests)
    (_, found), (_, expected) = pairs[-1]
    lengths = [len(ours._tokenized(*request.args)[1]) for request in requests]
    differences = [abs(a - b) / n for a, b, n in zip(found, expected, lengths, strict=True)]
    answers = [
        list(zip(*pair, strict=True))
        for pair in zip(_by_question(found, shape), _by_question(expected, shape), strict=True)
    ]
    other = [pair for pair in answers if _likeliest(pair, 0) != _likeliest(pair, 1)]
    return Row(
        dtype=dtype,
        questions=shape.name,
        n=n,
        tokens=sum(grouped.n_read),
        read=sum(len(row.tokens) for row in shared_rows(grouped.inputs, grouped.n_last)),
        seconds=statistics.median(ours[0] for ours, _ in pairs),
        lm_eval=statistics.median(theirs[0] for _, theirs in pairs),
        batch=batch,
        ratio=statistics.median(ours[0] / theirs[0] for ours, theirs in pairs),
        largest=max(differences),
        other_answers=len(other),
        ties=sum(_is_tie(pair, max(lengths)) for pair in other),
    )


def questions(shape: Shape, n: int) -> list[Instance]:
    """Cuts `n` questions from the project's own text; the same ones each time."""
    from lm_eval.api.instance import Instance

    from suite.data.text_sources import read_documents

    draw = random.Random(0)
    words = read_documents("wiki-sample", "test").joined.split()

    def cut(n_words: int) -> str:
        start = draw.randrange(len(words) - n_words)
        return " ".join(words[start : start + n_words])

    def question() -> tuple[str, list[str]]:
        return cut(draw.randint(*shape.context)), [
            " " + cut(draw.randint(*shape.option)) for _ in range(shape.n_options)
        ]

    def examples() -> str:
        shown = (question() for _ in range(shape.n_examples))
        return "".join(f"{context}{options[0]}{SEPARATOR}" for context, options in shown)

    of_all = examples() if shape.same_examples else None
    requests = []
    for number in range(n):
        before = examples() if of_all is None else of_all
        context, options = question()
        requests += [
            Instance("loglikelihood", {}, (before + context, option), index, ("questions", number, 1))
            for index, option in enumerate(options)
        ]
    return requests


def _timed(scorer: Any, requests: Sequence[Instance]) -> tuple[float, list[float]]:
    device = torch.device(scorer.device)
    synchronize(device)
    start = time.perf_counter()
    found = [value for value, _ in scorer.loglikelihood(requests, disable_tqdm=True)]
    synchronize(device)
    return time.perf_counter() - start, found


def _by_question(values: Sequence[float], shape: Shape) -> list[Sequence[float]]:
    return [values[first : first + shape.n_options] for first in range(0, len(values), shape.n_options)]


def _likeliest(pairs: Sequence[tuple[float, float]], side: int) -> int:
    return max(range(len(pairs)), key=lambda option: pairs[option][side])


def _is_tie(pairs: Sequence[tuple[float, float]], n_tokens: int) -> bool:
    first, second, *_ = sorted((theirs for _, theirs in pairs), reverse=True)
    return first - second <= 2 * TOLERANCE * n_tokens


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.questions", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--questions", type=int, default=500, help="number of questions of each kind")
    parser.add_argument("--only", nargs="+", choices=[shape.name for shape in SHAPES])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("runs/questions.json"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
