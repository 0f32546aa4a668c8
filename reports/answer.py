"""The answer a reader came for, in two sentences with numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from reports.comparison import Comparison
from reports.ranking import Ranking
from reports.wording import counted, decimal, gibibytes, interval, listed, pattern_name, seconds, visible

SPELLED_OUT = 4
"""Up to this many rankings are told one by one, more of them by counting who leads."""


def answer(comparison: Comparison) -> tuple[str, str]:
    """Which method keeps perplexity lowest, and what that costs."""
    ranked = [r for r in comparison.rankings if r.entries and r.entries[0].rank is not None]
    if not ranked:
        return _nothing_ranked(comparison)
    if len(ranked) > SPELLED_OUT:
        return _by_count(ranked), _cost(ranked, comparison)
    return _one_by_one(ranked), _cost(ranked, comparison)


def _one_by_one(ranked: Sequence[Ranking]) -> str:
    protocols = {_protocol(r) for r in ranked}
    shared = len(protocols) == 1
    several_dtypes = len({r.setting.dtype for r in ranked}) > 1
    several_models = len({r.setting.model for r in ranked}) > 1
    clauses = []
    for ranking in ranked:
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
    return f"{visible(protocol.name)}, n = {counted(protocol.n, 'window')}, lower is better"


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
    tied = [e.label for e in ranking.entries if e.scores[0].mark == "tied"]
    if tied:
        text += f", statistically tied with {listed(tied)}"
    return text + (", the only method measured" if score.mark == "only" else "")


def _by_count(ranked: Sequence[Ranking]) -> str:
    wins = Counter(r.entries[0].label for r in ranked).most_common()
    told = listed([f"{label} in {n}" for label, n in wins[:3]])
    rest = f", others in {sum(n for _, n in wins[3:])}" if len(wins) > 3 else ""
    ratios = [r.entries[0].scores[0].to_dense for r in ranked]
    held = [ratio.value for ratio in ratios if ratio is not None]
    span = f", at {decimal(min(held))} to {decimal(max(held))} times dense" if held else ""
    return (
        f"Over {len(ranked)} rankings (each its own model, pattern and protocol; lower is better) the lowest "
        f"perplexity is kept by {told}{rest}{span}; the intervals stand in the tables."
    )


def _cost(ranked: Sequence[Ranking], comparison: Comparison) -> str:
    first = ranked[0]
    best = first.entries[0]
    timed = [e for e in first.entries if e.method_seconds is not None]
    if best.method_seconds is None:
        return "What it cost was not recorded."
    fastest = min(timed, key=lambda e: e.method_seconds or 0.0)
    took = f"{seconds(best.method_seconds)} s to prune (one run)"
    text = f"At {pattern_name(first.pattern)}, {best.label} took {took}"
    if (peak := best.peak_host_bytes) is not None:
        text += f" at a peak of {gibibytes(peak)} GiB of host memory"
    if fastest is not best:
        text += f"; {fastest.label}, the fastest, took {seconds(fastest.method_seconds)} s"
        ours, theirs = best.scores[0].value, fastest.scores[0].value
        if ours and theirs:
            text += f" for {decimal(theirs / ours)} times that perplexity"
    failed = len(comparison.failed)
    return text + (f", and {counted(failed, 'cell')} failed." if failed else ".")


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
