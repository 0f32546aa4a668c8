"""Records that were measured item by item, and small sides made of them."""

from __future__ import annotations

from typing import Any

from suite.results.gate import Entry, Side
from suite.results.records.items import AnswerSet, AnswerText, TaskOutcomes, WindowDivergence, WindowLosses
from suite.results.records.record import Metric, ModelIdentity, Record, ReferenceSpeed
from tests.suite.results.examples import make_record

TEXT = "wiki-sample-token-s2048"
NLL = tuple(3.0 + 0.05 * n for n in range(16))
KL = tuple(0.4 + 0.01 * n for n in range(16))
AGREEMENT = tuple(0.6 + 0.01 * n for n in range(16))
MODEL = ModelIdentity(
    name="org/model",
    revision=None,
    architecture="LlamaForCausalLM",
    n_parameters=1000,
    weight_digest="d" * 64,
    dtype="float32",
)
REFERENCE_SPEED = ReferenceSpeed(
    matmul_flops_per_second=1e11, forward_tokens_per_second=1000.0, batch_size=4, seqlen=128
)


def losses(nll: tuple[float | None, ...] = NLL, **changes: Any) -> WindowLosses:
    fields: dict[str, Any] = {
        "protocol": TEXT,
        "corpus_digest": "c" * 64,
        "corpus_revision": "1",
        "seqlen": 2048,
        "limit": None,
        "nll": nll,
    }
    return WindowLosses(**{**fields, **changes})


def divergence(
    kl: tuple[float | None, ...] = KL, agreement: tuple[float | None, ...] = AGREEMENT
) -> WindowDivergence:
    return WindowDivergence(protocol=TEXT, kl=kl, agreement=agreement)


def asked(outcomes: str | None, task: str = "cloze", **changes: Any) -> TaskOutcomes:
    fields: dict[str, Any] = {
        "version": "1.0",
        "num_fewshot": 0,
        "limit": None,
        "n": len(outcomes or ""),
        "docs_digest": "d",
        "items_digest": "i",
        "metric": "acc",
    }
    return TaskOutcomes(task=task, protocol=f"{task}-0shot", outcomes=outcomes, **{**fields, **changes})


def answered(nll: tuple[float | None, ...], **changes: Any) -> AnswerSet:
    answers = tuple(
        AnswerText(id=str(n), kind="fact", prompt="p", text="t", n_tokens=4, ended=True, dense_nll=one)
        for n, one in enumerate(nll)
    )
    fields: dict[str, Any] = {
        "prompts": "built-in",
        "prompts_digest": "p" * 64,
        "max_new_tokens": 48,
        "chat_template": False,
        "batch_size": 4,
        "answers": answers,
    }
    return AnswerSet(**{**fields, **changes})


def costs(seconds: float = 10.0, host: float = 1e9, sparsity: float = 0.5) -> tuple[Metric, ...]:
    return (
        Metric(name="prune_seconds", protocol="", value=seconds, direction="lower"),
        Metric(name="peak_host_bytes", protocol="", value=host, direction="lower"),
        Metric(name="peak_device_bytes", protocol="", value=None, direction="lower", status="no accelerator"),
        Metric(name="sparsity", protocol="target-modules", value=sparsity, direction="none"),
    )


def record(**changes: Any) -> Record:
    fields: dict[str, Any] = {
        "model": MODEL,
        "windows": (losses(),),
        "metrics": costs(),
        "reference_speed": REFERENCE_SPEED,
        "mask_digest": "m" * 64,
    }
    cell = changes.pop("cell", None)
    return make_record(cell, **{**fields, **changes})


def side(*records: Record, name: str = "side") -> Side:
    return Side(name, tuple(Entry(one) for one in records))


def shifted(values: tuple[float, ...], by: float, spread: float = 0.0) -> tuple[float, ...]:
    """Every value moved by about `by`: the items do not move alike."""
    return tuple(value + by + spread * (-1) ** n for n, value in enumerate(values))
