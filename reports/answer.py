"""What a reader came for, with numbers: which method to use, what it costs, and whether to believe it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from reports.comparison import Comparison
from reports.ranking import Ranking, pattern_order
from reports.settings import protocol_title
from reports.trust import trust
from reports.wording import (
    counted,
    decimal,
    gibibytes,
    interval,
    listed,
    pattern_name,
    seconds,
    target_sparsity,
)

SPELLED_OUT = 4
"""Up to this many rankings are told one by one, more of them by counting who leads at each pattern."""
PATTERNS = 3
"""So many patterns are told then; the table has the others."""


@dataclass(frozen=True)
class Answer:
    """Three sentences, each to its question."""

    which: str
    """Which method keeps perplexity lowest."""
    cost: str
    """What that took."""
    trust: str
    """Whether the numbers can be relied on."""


def answer(comparison: Comparison) -> Answer:
    """The page's first words."""
    ranked = [r for r in comparison.rankings if r.entries and r.entries[0].rank is not None]
    told = trust(comparison)
    if not ranked:
        which, cost = _nothing_ranked(comparison)
        return Answer(which, cost, told)
    which = _by_count(ranked) if len(ranked) > SPELLED_OUT else _one_by_one(ranked)
    half = min(ranked, key=_from_half)
    several = len({ranking.setting.model for ranking in ranked}) > 1
    where = f"At {pattern_name(half.pattern)}{f' on {half.setting.model}' if several else ''}"
    return Answer(which, _cost(half, where), told)


def _from_half(ranking: Ranking) -> tuple[float, tuple[float, bool, str]]:
    """Orders patterns by their distance to 50 %, which most papers report, the unstructured one first."""
    target = target_sparsity(ranking.pattern)
    return (1.0 if target is None else abs(target - 0.5), pattern_order(ranking.pattern))


def _one_by_one(ranked: Sequence[Ranking]) -> str:
    protocols = {_protocol(r) for r in ranked}
    shared = len(protocols) == 1
    several_dtypes = len({r.setting.dtype for r in ranked}) > 1
    several_models = len({r.setting.model for r in ranked}) > 1
    clauses = []
    for ranking in sorted(ranked, key=lambda r: (r.setting.model, _from_half(r))):
        where = f"at {pattern_name(ranking.pattern)}"
        where += f" on {ranking.setting.model}" if several_models else ""
        where += f" ({ranking.setting.dtype})" if several_dtypes else ""
        clauses.append(_leader(ranking, where) + ("" if shared else f" ({_protocol(ranking)})"))
    on = "" if several_models else f"On {ranked[0].setting.model}, "
    measured = f" ({_protocol(ranked[0])})" if shared else ""
    text = f"{on}perplexity stays lowest {'; and '.join(clauses)}{measured}."
    return text[0].upper() + text[1:]


def _protocol(ranking: Ranking) -> str:
    protocol = ranking.setting.protocols[0]
    return f"{protocol_title(protocol)}, n = {counted(protocol.n, 'window')}, lower is better"


def _leader(ranking: Ranking, where: str) -> str:
    best = ranking.entries[0]
    score = best.scores[0]
    spread = interval(score.low, score.high)
    text = f"with {best.label} {where}: {decimal(score.value)}" + (
        f" (95 % interval {spread})" if spread else ""
    )
    if score.to_dense is not None:
        paired = interval(score.to_dense.low, score.to_dense.high)
        text += f", {decimal(score.to_dense.value)} times dense" + (f" ({paired})" if paired else "")
    if tied := [e.label for e in ranking.entries if e.scores[0].mark == "tied"]:
        more = f" and {len(tied) - 2} more" if len(tied) > 3 else ""
        text += f", statistically tied with {', '.join(tied[:2]) + more if more else listed(tied)}"
    return text + (", the only method measured" if score.mark == "only" else "")


def _by_count(ranked: Sequence[Ranking]) -> str:
    """Who leads, pattern by pattern: 50 % first."""
    groups: dict[str | None, list[Ranking]] = {}
    for ranking in sorted(ranked, key=_from_half):
        groups.setdefault(ranking.pattern, []).append(ranking)
    shown = list(groups.items())[:PATTERNS]
    clauses = [f"at {pattern_name(pattern)} {_leaders(group)}" for pattern, group in shown]
    rest = len(groups) - len(shown)
    further = (
        f" {counted(rest, 'further pattern')} stand{'s' if rest == 1 else ''} in the table." if rest else ""
    )
    return (
        f"Perplexity stays lowest {'; '.join(clauses)} (a ranking is one model, dtype, pattern and text; "
        f"lower is better; the intervals stand in the table).{further}"
    )


def _leaders(rankings: Sequence[Ranking]) -> str:
    wins = Counter(r.entries[0].record.cell.method for r in rankings).most_common(3)
    if len(rankings) == 1:
        best = rankings[0].entries[0]
        told = f"with {best.label}"
    else:
        told = f"with {listed([f'{method} in {n:,}' for method, n in wins])} of {len(rankings):,} rankings"
    ratios = [r.entries[0].scores[0].to_dense for r in rankings]
    held = sorted(ratio.value for ratio in ratios if ratio is not None)
    if not held:
        return told
    low, high = decimal(held[0]), decimal(held[-1])
    return f"{told}, {low if low == high else f'{low} to {high}'} times dense"


def _cost(ranking: Ranking, where: str) -> str:
    best = ranking.entries[0]
    timed = [e for e in ranking.entries if e.method_seconds is not None]
    if best.method_seconds is None:
        return "What it cost was not recorded."
    fastest = min(timed, key=lambda e: e.method_seconds or 0.0)
    took = f"{seconds(best.method_seconds)} s to prune (one run)"
    text = f"{where}, {best.label} took {took}"
    if (peak := best.peak_device_bytes) is not None:
        text += f" at a peak of {gibibytes(peak)} GiB of device memory"
    elif (peak := best.peak_host_bytes) is not None:
        text += f" at a peak of {gibibytes(peak)} GiB of host memory"
    if fastest is not best:
        text += f"; {fastest.label}, the fastest, took {seconds(fastest.method_seconds)} s"
        ours, theirs = best.scores[0].value, fastest.scores[0].value
        if ours and theirs:
            text += f" for {decimal(theirs / ours)} times that perplexity"
    return f"{text}."


def _nothing_ranked(comparison: Comparison) -> tuple[str, str]:
    failed = len(comparison.failed)
    if not comparison.rankings:
        return (
            f"No cell finished ({counted(failed, 'cell')} failed), so there is nothing to rank.",
            "The reasons stand below; running the same suite again repeats only what failed.",
        )
    dense = [r.dense for r in comparison.rankings if r.dense is not None and r.dense.scores]
    lost = f"; {counted(failed, 'cell')} failed" if failed else ""
    if any(r.entries for r in comparison.rankings):
        return (
            f"No pruned model has a perplexity to rank it by{lost}.",
            "The table says why, row by row.",
        )
    if not dense:
        return f"Nothing was measured that could be ranked{lost}.", "The configurations stand below."
    ranking = next(r for r in comparison.rankings if r.dense is not None and r.dense.scores)
    score = dense[0].scores[0]
    spread = interval(score.low, score.high)
    return (
        f"Only the dense model was measured{lost}: {ranking.setting.model} has a perplexity of "
        f"{decimal(score.value)}{f' (95 % interval {spread})' if spread else ''} ({_protocol(ranking)}).",
        "There is no pruned record to compare with it yet.",
    )


__all__ = ["Answer", "answer"]
