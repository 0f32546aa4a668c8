"""Synthetic records with more than perplexity: divergence, tasks, answers, size and speed."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from suite.cell import AnswersSpec, Cell, SpeedSpec, TaskSpec
from suite.data.prompts import load_prompts
from suite.results.records.items import AnswerSet, AnswerText, TaskOutcomes, WindowDivergence
from suite.results.records.record import Metric, Record
from suite.results.statistics.metrics import ANSWERS, item_metrics, metric_of
from suite.results.statistics.paired import mcnemar
from suite.results.statistics.single import mean_stderr, proportion
from tests.reports.synthetic import PERPLEXITY, SETTINGS, make_record

N_QUESTIONS = 200
TASKS = ("cloze", "agreement")
HARM = {kind: 1 - PERPLEXITY["dense"] / perplexity for kind, perplexity in PERPLEXITY.items()}
"""0 for dense, towards 1 the worse a kind is."""
NO_KERNEL = "unstructured zeros bring no speed here: there is no kernel for them"
STORED = 269_030_016
WORDS = "the answer to this is a matter of light water and time which move along one river".split()  # noqa: SIM905


def measured_record(kind: str, pattern: str | None = "0.5", **changes: Any) -> Record:
    """A record of one of `SETTINGS` with everything measured.

    Besides what `make_record` takes: `tasks` names the tasks, `version` and `limit` are theirs, `parts` which
    of `divergence`, `tasks`, `answers` and `speed` there are, `answers` may be the texts.
    """
    tasks = changes.pop("tasks", TASKS)
    version, limit = changes.pop("version", "1.0"), changes.pop("limit", N_QUESTIONS)
    parts = changes.pop("parts", ("divergence", "tasks", "answers", "speed"))
    texts = changes.pop("answers", None)
    built = make_record(kind, pattern, **changes)
    cell = built.cell.model_copy(
        update={
            "divergence": "divergence" in parts,
            "tasks": tuple(TaskSpec(name=t, limit=limit) for t in tasks) if "tasks" in parts else (),
            "answers": AnswersSpec() if "answers" in parts else None,
            "speed": SpeedSpec() if "speed" in parts else None,
        }
    )
    metrics = list(built.metrics)
    fields: dict[str, Any] = {"cell": cell}
    if "divergence" in parts and not cell.is_dense:
        fields["divergences"] = tuple(_divergence(kind, w.protocol, len(w.nll)) for w in built.windows)
        for found in fields["divergences"]:
            metrics.append(metric_of("kl_divergence", found.protocol, mean_stderr(found.kl), "lower"))
            metrics.append(
                metric_of("top1_agreement", found.protocol, mean_stderr(found.agreement), "higher")
            )
    if "tasks" in parts:
        fields["tasks"] = tuple(_task(kind, task, version, limit) for task in tasks)
        for task in fields["tasks"]:
            metrics += _task_metrics(
                task, None if cell.is_dense else _task("dense", task.task, version, limit)
            )
    if "answers" in parts:
        fields["answers"] = answer_set(kind, pattern, texts)
        metrics += item_metrics(ANSWERS, fields["answers"], compared=not cell.is_dense)
    if "speed" in parts:
        metrics += _cost_metrics(cell)
    return built.model_copy(update={**fields, "metrics": tuple(metrics)}).sealed()


def measured_quickstart() -> list[Record]:
    """The comparison's thirteen cells with everything measured, and two more seeds of one of them."""
    pruned = [kind for kind in SETTINGS if kind != "dense"]
    return [
        measured_record("dense"),
        *(measured_record(kind, pattern) for pattern in ("0.5", "2:4") for kind in pruned),
        *(make_record("wanda", seed=seed, ppl_factor=1 + seed / 50) for seed in (1, 2)),
    ]


def finished_checkpoint(name: str = "pruned/", *, counted: bool = True) -> Record:
    """What `prunebench evaluate` makes of a checkpoint, whose sparsity it counts or reads."""
    built = measured_record("wanda", parts=("divergence", "tasks"))
    assert built.model is not None
    told = [m for m in built.metrics if m.name not in ("sparsity", "prune_seconds")]
    told.append(
        Metric(
            name="sparsity", protocol="zeros" if counted else "target-modules", value=0.5, direction="none"
        )
    )
    if not counted:
        told.append(Metric(name="prune_seconds", protocol="pruning.json", value=14.0, direction="lower"))
    changed = {"method": "checkpoint", "settings": {}, "calibration": None} if counted else {}
    return built.model_copy(
        update={
            "cell": built.cell.model_copy(update={**changed, "checkpoint": name}),
            "checkpoint": built.model.model_copy(update={"name": name, "weight_digest": "5afe" * 16}),
            "metrics": tuple(told),
            "calibration": None,
            "mask_digest": None,
            "phases": tuple(p for p in built.phases if p.name.startswith(("load", "evaluate"))),
        }
    ).sealed()


def answer_set(kind: str, pattern: str | None, texts: Sequence[str] | None = None) -> AnswerSet:
    """Answers to the built-in prompts; `texts` replaces the first ones."""
    prompts = load_prompts("built-in")
    answers = []
    for place, prompt in enumerate(prompts.prompts):
        said, dense = _said(prompt.id, kind, pattern), _said(prompt.id, "dense", None)
        text = " ".join(said)
        if texts is not None and place < len(texts):
            text = texts[place]
        parted = None if said == dense else next(i for i in range(48) if said[i] != dense[i])
        answers.append(
            AnswerText(
                id=prompt.id,
                kind=prompt.kind,
                prompt=prompt.text,
                text=text,
                n_tokens=len(said),
                ended=place % 3 == 0,
                parted_at=None if kind == "dense" else parted,
                repetition=HARM[kind] * 0.4 + place / 1000,
                dense_nll=None if kind == "dense" else 0.5 + 2 * HARM[kind] + place / 100,
            )
        )
    return AnswerSet(
        prompts="built-in",
        prompts_digest=prompts.digest,
        max_new_tokens=48,
        chat_template=True,
        batch_size=48,
        answers=tuple(answers),
    )


def _said(prompt: str, kind: str, pattern: str | None) -> list[str]:
    dense = random.Random(prompt)
    words = [dense.choice(WORDS) for _ in range(48)]
    own = random.Random(f"{prompt} {kind} {pattern}")
    if kind == "dense" or own.random() < 0.3 * (1 - HARM[kind]):
        return words
    start = own.randrange(2, 40)
    return words[:start] + [own.choice([w for w in WORDS if w != words[i]]) for i in range(start, 48)]


def _divergence(kind: str, protocol: str, n: int) -> WindowDivergence:
    own = random.Random(f"{kind} {protocol} divergence")
    kl = tuple(-math.log(1 - HARM[kind]) * own.uniform(0.8, 1.2) for _ in range(n))
    return WindowDivergence(protocol=protocol, kl=kl, agreement=tuple(math.exp(-k) for k in kl))


def _task(kind: str, task: str, version: str, limit: int | None) -> TaskOutcomes:
    question, own = random.Random(task), random.Random(f"{kind} {task}")
    right = [question.random() < 0.62 for _ in range(N_QUESTIONS)]
    flipped = [own.random() < 0.3 * HARM[kind] * (1.5 if r else 0.5) for r in right]
    return TaskOutcomes(
        task=task,
        protocol=f"{task}-0shot",
        version=version,
        num_fewshot=0,
        limit=limit,
        n=N_QUESTIONS,
        docs_digest=f"{task}-docs",
        items_digest=f"{task}-items",
        metric="acc",
        outcomes="".join("01"[r != f] for r, f in zip(right, flipped, strict=True)),
    )


def _task_metrics(task: TaskOutcomes, dense: TaskOutcomes | None) -> list[Metric]:
    right = [int(one) for one in task.outcomes or ""]
    metrics = [
        metric_of("acc", task.protocol, proportion(right), "higher"),
        Metric(name="acc_norm", protocol=task.protocol, value=0.5, stderr=0.03, n=task.n, direction="higher"),
    ]
    if dense is None:
        return metrics
    flips = mcnemar([int(one) for one in dense.outcomes or ""], right)
    return [
        *metrics,
        metric_of("flips_right_to_wrong", task.protocol, flips.lost, "lower"),
        metric_of("flips_wrong_to_right", task.protocol, flips.gained, "none"),
    ]


def _cost_metrics(cell: Cell) -> list[Metric]:
    rates = {"prefill_tokens_per_second": (900.0, 910.0, 905.0)}
    rates |= {"generation_tokens_per_second": (21.0, 21.4, 21.1)}
    protocols = {"prefill_tokens_per_second": "b1-p512", "generation_tokens_per_second": "b1-p512-g32"}
    metrics = [
        metric_of(name, protocols[name], mean_stderr(values), "higher") for name, values in rates.items()
    ]
    metrics.append(Metric(name="checkpoint_bytes", protocol=cell.dtype, value=STORED, direction="lower"))
    if cell.is_dense:
        return metrics
    semi = ":" in (cell.pattern or "")
    for name, values in rates.items():
        faster = metric_of(
            f"sparse_{name}", protocols[name], mean_stderr([1.3 * v for v in values]), "higher"
        )
        none = Metric(
            name=f"sparse_{name}", protocol=protocols[name], value=None, direction="higher", status=NO_KERNEL
        )
        metrics.append(faster if semi else none)
    packed = 0.66 * STORED if semi else None
    return [
        *metrics,
        Metric(name="bitmask_bytes", protocol=cell.dtype, value=0.65 * STORED, direction="lower"),
        Metric(
            name="packed_bytes",
            protocol=cell.dtype,
            value=packed,
            direction="lower",
            status="ok" if packed else "no N:M pattern",
        ),
        Metric(
            name="prune_energy_joules",
            protocol="",
            value=None,
            direction="lower",
            status="this machine does not count energy",
        ),
    ]
