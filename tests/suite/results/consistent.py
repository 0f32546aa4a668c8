"""A record in which every number follows from its items, with its side file; and the dense one beside it."""

from __future__ import annotations

import hashlib
from math import log
from typing import Any

import pandas as pd

from suite.cell import AnswersSpec, CalibrationSpec, Cell, PerplexitySpec, TaskSpec
from suite.results.records.items import (
    AnswerSet,
    AnswerText,
    RightAnswers,
    TaskOutcomes,
    WindowDivergence,
    WindowLosses,
)
from suite.results.records.record import (
    CalibrationIdentity,
    CodeVersion,
    Metric,
    ModelIdentity,
    ModuleReport,
    PhaseCost,
    Record,
)
from suite.results.statistics.paired import mcnemar
from suite.results.statistics.perplexity import perplexity_from_nll
from suite.results.statistics.single import Estimate, mean_share, mean_stderr, proportion
from suite.results.verification import ItemRow
from tests.suite.results.examples import ENVIRONMENT

TEXT, TASK, PROMPTS = "news-sample-token-s8", "mine-0shot", "built-in-greedy4"
CODE = CodeVersion(
    prunebench="0.1.0", method_version=1, source_digest="a" * 64, git_commit="b" * 40, git_clean=True
)
BEFORE, AFTER = "110110", "101110"
RIGHT = RightAnswers(produced="100100", ranks=(1, 12, 7, 1, 300, 2), losses=(0.1, 2.5, 3.0, 0.25, 7.5, 1.0))
SPARSITY = Metric(name="sparsity", protocol="target-modules", value=0.5, direction="none")


def cell(**changes: Any) -> Cell:
    fields: dict[str, Any] = {
        "model": "org/model",
        "method": "wanda",
        "settings": {},
        "pattern": "2:4",
        "calibration": CalibrationSpec(source="wiki-sample", n_samples=4, seqlen=8, seed=1),
        "dtype": "float32",
        "perplexity": (PerplexitySpec(corpus="news-sample", seqlen=8, max_tokens=32),),
        "divergence": True,
        "tasks": (TaskSpec(name="mine", limit=6),),
        "answers": AnswersSpec(max_new_tokens=4),
    }
    return Cell(**{**fields, **changes})


def dense_cell() -> Cell:
    return cell(method="dense", pattern=None, calibration=None)


def metric(name: str, protocol: str, estimate: Estimate, direction: Any) -> Metric:
    numbers = {field: getattr(estimate, field) for field in ("value", "stderr", "low", "high", "n", "status")}
    return Metric(name=name, protocol=protocol, direction=direction, **numbers)


def items_digest(n: int) -> str:
    digest = hashlib.sha256()
    for item in range(n):
        digest.update(f"doc{item}\0prompt{item}\0target{item}\n".encode())
    return digest.hexdigest()


def task(outcomes: str) -> TaskOutcomes:
    return TaskOutcomes(
        task="mine",
        protocol=TASK,
        version="1",
        num_fewshot=0,
        limit=6,
        n=len(outcomes),
        docs_digest="d" * 64,
        items_digest=items_digest(len(outcomes)),
        metric="acc",
        outcomes=outcomes,
        right_answers=RIGHT,
        contexts="shared",
    )


def rows(record: Record) -> pd.DataFrame:
    """The side file of a record: what its windows and questions say."""
    found: list[ItemRow] = []
    for losses in record.windows:
        found += _windows(losses.protocol, "nll", losses.nll, losses.seqlen)
    for divergence in record.divergences:
        found += _windows(divergence.protocol, "kl", divergence.kl, 8)
        found += _windows(divergence.protocol, "agreement", divergence.agreement, 8)
    for asked in record.tasks:
        for item, outcome in enumerate(asked.outcomes or ""):
            hashes = (f"doc{item}", f"prompt{item}", f"target{item}")
            found.append(ItemRow(TASK, "acc", item, *hashes, float(outcome), None))
            found.append(ItemRow(TASK, "graded", item, *hashes, item / 4, None))
    frame = pd.DataFrame(found, columns=list(ItemRow._fields))
    return frame.astype({"value": "float64", "n_tokens": "Int64"})


def _windows(protocol: str, metric: str, values: tuple[float | None, ...], seqlen: int) -> list[ItemRow]:
    return [
        ItemRow(protocol, metric, item, f"w{item}", None, None, value, seqlen - 1)
        for item, value in enumerate(values)
    ]


def dense_record(**changes: Any) -> Record:
    return _record(dense_cell(), (3.0, 3.25, 2.5, 3.5), BEFORE, **changes)


def pruned_record(**changes: Any) -> Record:
    """2:4 on two modules, held against the dense one."""
    kl, agreement = (0.25, 0.5, 0.125, 0.3), (0.75, 0.5, 1.0, 0.875)
    flips = mcnemar([int(o) for o in BEFORE], [int(o) for o in AFTER])
    modules = tuple(
        ModuleReport(
            module=f"layers.0.{name}",
            layer=0,
            block="attention",
            shape=shape,
            n_weights=shape[0] * shape[1],
            n_pruned=shape[0] * shape[1] // 2,
        )
        for name, shape in (("q", (4, 8)), ("k", (2, 8)))
    )
    fields: dict[str, Any] = {
        "divergences": (WindowDivergence(protocol=TEXT, kl=kl, agreement=agreement),),
        "modules": modules,
        "mask_digest": "e" * 64,
        "calibration": CalibrationIdentity(
            source="wiki-sample", n_samples=4, seqlen=8, seed=1, digest="f" * 64
        ),
        "phases": (
            PhaseCost(name="calibrate", seconds=0.5),
            PhaseCost(name="prune", seconds=1.25, peak_host_bytes=10**6),
        ),
    }
    more = (
        metric("kl_divergence", TEXT, mean_stderr(kl), "lower"),
        metric("top1_agreement", TEXT, mean_share(agreement), "higher"),
        metric("flips_right_to_wrong", TASK, flips.lost, "lower"),
        metric("flips_wrong_to_right", TASK, flips.gained, "none"),
        SPARSITY,
        # 100 parameters of 4 bytes; 24 of the 48 target weights are gone; a bit a weight, 2 bits a survivor.
        Metric(name="bitmask_bytes", protocol="float32", value=400 - 96 + 6, direction="lower"),
        Metric(name="packed_bytes", protocol="float32", value=400 - 96 + 4 + 2, direction="lower"),
        Metric(name="prune_seconds", protocol="", value=1.75, direction="lower"),
        Metric(name="peak_host_bytes", protocol="", value=10**6, direction="lower"),
        Metric(
            name="peak_device_bytes",
            protocol="",
            value=None,
            direction="lower",
            status="no accelerator in use",
        ),
        Metric(name="prune_energy_joules", protocol="", value=None, direction="lower", status="not counted"),
    )
    return _record(cell(), (3.5, 3.25, 2.75, 4.0), AFTER, more, **{**fields, **changes})


def _record(
    of: Cell, nll: tuple[float, ...], outcomes: str, more: tuple[Metric, ...] = (), **changes: Any
) -> Record:
    answers = AnswerSet(
        prompts="built-in",
        prompts_digest="9" * 64,
        max_new_tokens=4,
        chat_template=False,
        batch_size=3,
        answers=tuple(
            AnswerText(
                id=str(n),
                kind="other",
                prompt="p",
                text="t",
                n_tokens=n + 2,
                ended=n < 2,
                parted_at=1 if n == 1 and not of.is_dense else None,
                repetition=0.0 if n == 2 else None,
                dense_nll=None if of.is_dense else 0.5 + n,
            )
            for n in range(3)
        ),
    )
    held = (
        metric("answers_as_dense", PROMPTS, proportion([1, 0, 1]), "higher"),
        metric("answer_dense_nll", PROMPTS, mean_stderr([0.5, 1.5, 2.5]), "lower"),
    )
    fields: dict[str, Any] = {
        "status": "complete",
        "created": "2025-01-01T00:00:00+00:00",
        "cell": of,
        "code": CODE,
        "environment": ENVIRONMENT,
        "model": ModelIdentity(
            name="org/model",
            revision="1" * 40,
            architecture="Llama",
            n_parameters=100,
            weight_digest="2" * 64,
            dtype="float32",
        ),
        "metrics": (
            metric("perplexity", TEXT, perplexity_from_nll(nll), "lower"),
            metric("acc", TASK, proportion([int(o) for o in outcomes]), "higher"),
            metric("graded", TASK, mean_stderr([item / 4 for item in range(6)]), "higher"),
            metric("production_accuracy", TASK, proportion([1, 0, 0, 1, 0, 0]), "higher"),
            metric("answer_rank", TASK, perplexity_from_nll([log(rank) for rank in RIGHT.ranks]), "lower"),
            metric("answer_token_loss", TASK, mean_stderr(RIGHT.losses), "lower"),
            metric("answer_tokens", PROMPTS, mean_stderr([2, 3, 4]), "none"),
            metric("answer_repetition", PROMPTS, mean_share([0.0]), "lower"),
            *(() if of.is_dense else held),
            metric("answers_ended", PROMPTS, proportion([1, 1, 0]), "none"),
            Metric(name="checkpoint_bytes", protocol="float32", value=400, direction="lower"),
            *more,
        ),
        "windows": (
            WindowLosses(
                protocol=TEXT, corpus_digest="3" * 64, corpus_revision="1", seqlen=8, limit=32, nll=nll
            ),
        ),
        "tasks": (task(outcomes),),
        "answers": answers,
    }
    return Record(**{**fields, **changes})


def cherry_picked(record: Record) -> Record:
    """The first two windows alone, under the digest of all four, and everything formed anew from them."""
    losses, divergence = record.windows[0], record.divergences[0]
    nll, kl, agreement = losses.nll[:2], divergence.kl[:2], divergence.agreement[:2]
    picked = record.model_copy(
        update={
            "windows": (losses.model_copy(update={"nll": nll}),),
            "divergences": (WindowDivergence(protocol=TEXT, kl=kl, agreement=agreement),),
        }
    )
    for name, estimate in (
        ("perplexity", perplexity_from_nll(nll)),
        ("kl_divergence", mean_stderr(kl)),
        ("top1_agreement", mean_share(agreement)),
    ):
        numbers = {field: getattr(estimate, field) for field in ("value", "stderr", "low", "high", "n")}
        picked = with_metric(picked, name, **numbers)
    return picked


def with_metric(record: Record, name: str, **changes: Any) -> Record:
    """The record with some fields of one metric changed."""
    return record.model_copy(
        update={
            "metrics": tuple(
                one.model_copy(update=changes) if one.name == name else one for one in record.metrics
            )
        }
    )
