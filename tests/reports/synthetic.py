"""Synthetic records with the numbers a 135M model gives, so that no test needs a model."""

from __future__ import annotations

import math
import random
from typing import Any

from suite.cell import CalibrationSpec, Cell, PerplexitySpec
from suite.results.records.items import WindowLosses
from suite.results.records.record import (
    CalibrationIdentity,
    CodeVersion,
    Environment,
    Failure,
    Metric,
    ModelIdentity,
    ModuleReport,
    PhaseCost,
    Record,
    ReferenceSpeed,
)

N_LAYERS = 30
N_WINDOWS = 20
TARGETS = {
    "self_attn.q_proj": ("attention", (576, 576)),
    "self_attn.k_proj": ("attention", (192, 576)),
    "self_attn.v_proj": ("attention", (192, 576)),
    "self_attn.o_proj": ("attention", (576, 576)),
    "mlp.gate_proj": ("mlp", (1536, 576)),
    "mlp.up_proj": ("mlp", (1536, 576)),
    "mlp.down_proj": ("mlp", (576, 1536)),
}
BARBER = {"granularity": "output", "rebuild_ratio": 0.1, "score": "weight_gradient", "nm_guard": True}
SETTINGS: dict[str, dict[str, Any]] = {
    "dense": {},
    "magnitude": {},
    "wanda": {},
    "sparsegpt": {"block_size": 128, "damping": 0.01},
    "barber-magnitude": {"initial": "magnitude", **BARBER, "granularity": "block"},
    "barber-wanda": {"initial": "wanda", **BARBER},
    "barber-sparsegpt": {"initial": "sparsegpt", **BARBER, "granularity": "layer"},
}
PERPLEXITY = {"dense": 25.0, "sparsegpt": 40.3, "barber-sparsegpt": 46.3, "barber-wanda": 48.6}
PERPLEXITY |= {"wanda": 49.0, "barber-magnitude": 66.2, "magnitude": 501.0}
SECONDS = {
    "magnitude": (0.0, 0.4, 0.0),
    "wanda": (6.1, 1.2, 5.0),
    "sparsegpt": (14.0, 31.5, 5.2),
    "barber-magnitude": (31.0, 6.3, 9.8),
    "barber-wanda": (37.4, 7.4, 14.9),
    "barber-sparsegpt": (45.2, 37.8, 15.3),
}
ERROR = {"magnitude": 0.9, "wanda": 0.16, "sparsegpt": 0.11}
ENVIRONMENT = Environment(
    python="3.11.9",
    platform="Linux-6.1-x86_64",
    processor="a processor with two cores",
    physical_cores=2,
    host_memory_bytes=24 * 2**30,
    device="cpu",
    packages={"torch": "2.11.0", "transformers": "5.17.0", "numpy": "2.3.1"},
    threads=2,
    native_bf16=False,
)


def make_record(kind: str, pattern: str | None = "0.5", **changes: Any) -> Record:
    """A complete record of one of `SETTINGS`; `changes` are fields to replace.

    Besides the fields of `Record`, `model_name`, `dtype`, `ppl_factor`, `n_windows`, `corpora`, `seqlen`,
    `max_tokens`, `seed` and `settings` change what the record is built from.
    """
    name = changes.pop("model_name", "smollm2-135m")
    dtype = changes.pop("dtype", "float32")
    factor = changes.pop("ppl_factor", 1.0)
    n_windows = changes.pop("n_windows", N_WINDOWS)
    corpora = changes.pop("corpora", ("wiki-sample", "news-sample"))
    seqlen, max_tokens = changes.pop("seqlen", 512), changes.pop("max_tokens", 10_240)
    seed = changes.pop("seed", 0)
    settings = changes.pop("settings", SETTINGS[kind])
    dense, barber = kind == "dense", kind.startswith("barber")
    pattern = None if dense else pattern
    specs = tuple(PerplexitySpec(corpus=c, seqlen=seqlen, max_tokens=max_tokens) for c in corpora)
    cell = Cell(
        model=name,
        method="llm-barber" if barber else kind,
        settings=settings,
        pattern=pattern,
        calibration=None
        if kind in ("dense", "magnitude")
        else CalibrationSpec(n_samples=32, seqlen=512, seed=seed),
        dtype=dtype,
        perplexity=specs,
    )
    harder = 1.35 if pattern and ":" in pattern and kind != "magnitude" else 1.0
    windows = tuple(
        _windows(kind, spec, PERPLEXITY[kind] * factor * harder * (1.0 + 0.42 * i), n_windows)
        for i, spec in enumerate(specs)
    )
    fields: dict[str, Any] = {
        "status": "complete",
        "created": "2026-01-05T10:00:00Z",
        "cell": cell,
        "code": CodeVersion(
            prunebench="0.1.0", method_version=None if dense else 1, source_digest="c0de" * 16
        ),
        "environment": ENVIRONMENT,
        "model": ModelIdentity(
            name=name,
            revision=None,
            architecture="LlamaForCausalLM",
            n_parameters=134_515_008,
            weight_digest="b179" * 16,
            dtype=dtype,
        ),
        "calibration": cell.calibration
        and CalibrationIdentity(**cell.calibration.model_dump(exclude={"first_token"}), digest="ca11" * 16),
        "mask_digest": None if dense else "ma5c" * 16,
        "phases": _phases(kind),
        "reference_speed": ReferenceSpeed(
            matmul_flops_per_second=9.1e10, forward_tokens_per_second=910.0, batch_size=8, seqlen=512
        ),
        "windows": windows,
        "modules": () if dense else tuple(_modules(kind, pattern or "0.5")),
    }
    fields["metrics"] = _metrics(fields)
    fields |= changes
    return Record(**fields).sealed()


def failed_record(kind: str = "sparsegpt", pattern: str = "2:4", message: str = "") -> Record:
    """A cell that failed while it solved."""
    failure = Failure(
        phase="solve",
        error="SingularHessianError",
        message=message or "model.layers.3.mlp.down_proj: the Hessian is singular even at damping 10",
        traceback='Traceback (most recent call last):\n  File "sparsegpt.py", line 88, in solve\n',
    )
    built = make_record(kind, pattern)
    empty: dict[str, Any] = {"metrics": (), "windows": (), "modules": (), "mask_digest": None}
    return built.model_copy(update={"status": "failed", "failure": failure, **empty}).sealed()


def quickstart() -> list[Record]:
    """The thirteen cells of the comparison suite."""
    pruned = [kind for kind in SETTINGS if kind != "dense"]
    return [make_record("dense"), *(make_record(kind, p) for p in ("0.5", "2:4") for kind in pruned)]


def _windows(kind: str, spec: PerplexitySpec, perplexity: float, n: int) -> WindowLosses:
    # The text decides most of a window's loss, whichever model reads it: that is what makes pairing pay.
    text, own = random.Random(spec.corpus), random.Random(f"{kind} {spec.corpus}")
    spread = [text.gauss(0, 0.22) + own.gauss(0, 0.03) for _ in range(n)]
    mean = sum(spread) / n
    return WindowLosses(
        protocol=spec.protocol,
        corpus_digest=f"{spec.corpus}-digest",
        corpus_revision="1",
        seqlen=spec.seqlen,
        limit=spec.max_tokens,
        nll=tuple(math.log(perplexity) + s - mean for s in spread),
    )


def _phases(kind: str) -> tuple[PhaseCost, ...]:
    around = [("load", 3.2), ("evaluate wiki-sample-token-s512", 41.0)]
    if kind != "dense":
        inner = dict(zip(("statistics", "solve", "propagate"), SECONDS[kind], strict=True))
        around[1:1] = [("calibrate", 0.0 if kind == "magnitude" else 1.9), *inner.items(), ("check", 0.6)]
    peak = {"sparsegpt": 2.4, "barber-sparsegpt": 3.1, "barber-wanda": 2.9}.get(kind, 1.7)
    return tuple(PhaseCost(name=n, seconds=s, peak_host_bytes=int(peak * 2**30)) for n, s in around if s)


def _modules(kind: str, pattern: str) -> list[ModuleReport]:
    barber = kind.startswith("barber")
    start = kind.removeprefix("barber-")
    reports = []
    for layer in range(N_LAYERS):
        for module, (block, shape) in TARGETS.items():
            noise = random.Random(f"{kind} {layer} {block} {pattern}")
            size = shape[0] * shape[1]
            depth = 0.35 + 0.65 * layer / N_LAYERS + 0.9 * math.exp(-layer)
            before = ERROR[start] * depth * (1.3 if block == "mlp" else 0.8) * noise.uniform(0.9, 1.1)
            fall = {"magnitude": 0.3, "wanda": 0.93, "sparsegpt": 1.12}[start] * noise.uniform(0.96, 1.04)
            share = (
                {"magnitude": 0.02, "wanda": 0.0015, "sparsegpt": 0.008}[start]
                * depth
                * noise.uniform(0.8, 1.2)
            )
            calibrated = kind != "magnitude"
            reports.append(
                ModuleReport(
                    module=f"model.layers.{layer}.{module}",
                    layer=layer,
                    block=block,
                    shape=shape,
                    n_weights=size,
                    n_pruned=size // 2,
                    error_before=before if barber else None,
                    error_after=before * (fall if barber else 1.0) if calibrated else None,
                    damping=0.01 if "sparsegpt" in kind else None,
                    swaps=int(size * share) if barber else None,
                )
            )
    return reports


def _metrics(fields: dict[str, Any]) -> tuple[Metric, ...]:
    metrics = []
    for w in fields["windows"]:
        mean = sum(w.nll) / len(w.nll)
        metrics.append(
            Metric(
                name="perplexity", protocol=w.protocol, value=math.exp(mean), n=len(w.nll), direction="lower"
            )
        )
    modules, phases = fields["modules"], fields["phases"]
    if modules:
        achieved = sum(m.n_pruned for m in modules) / sum(m.n_weights for m in modules)
        metrics.append(Metric(name="sparsity", protocol="", value=achieved, direction="none"))
        inner = sum(p.seconds for p in phases if not p.name.startswith(("load", "evaluate", "check")))
        metrics.append(Metric(name="prune_seconds", protocol="", value=inner, direction="lower"))
    peak = max(p.peak_host_bytes for p in phases)
    metrics.append(Metric(name="peak_host_bytes", protocol="", value=float(peak), direction="lower"))
    return tuple(metrics)
