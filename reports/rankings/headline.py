"""The main answers of a report, with numbers: which method to use, its cost, and how reliable it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.rankings.comparison import Comparison
from reports.rankings.ranking import Ranking, Setting, pattern_order
from reports.rankings.settings import protocol_title, setting_titles
from reports.rankings.trust import trust
from reports.wording import (
    counted,
    decimal,
    gibibytes,
    interval,
    listed,
    pattern_name,
    seconds,
    target_sparsity,
    visible,
)
from suite.results.records.comparability import machine_of

SPELLED_OUT = 4
"""Up to this many rankings are described one by one; more are summarized by leaders per pattern."""
PATTERNS = 3
"""Number of patterns in that summary; the table has the others."""


@dataclass(frozen=True)
class Answer:
    """Three sentences, one per question."""

    which: str
    """Which method keeps perplexity lowest."""
    cost: str
    """What that method cost."""
    trust: str
    """Whether the numbers can be relied on."""


def answer(comparison: Comparison, n_problems: int = 0) -> Answer:
    """Writes the first sentences of the page.

    Args:
        comparison: the comparison of the readable records.
        n_problems: number of records that could not be read.
    """
    ranked = [r for r in comparison.rankings if r.entries and r.entries[0].rank is not None]
    reliability = trust(comparison, n_problems)
    if not ranked:
        which, cost = _nothing_ranked(comparison)
        return Answer(which, cost, reliability)
    settings = list(dict.fromkeys(ranking.setting for ranking in ranked))
    titles = dict(zip(settings, setting_titles(settings), strict=True)) if len(settings) > 1 else {}
    which = _by_count(ranked, titles) if len(ranked) > SPELLED_OUT else _one_by_one(ranked, titles)
    return Answer(which, _cost(min(ranked, key=_from_half), titles), reliability)


Titles = Mapping[Setting, str]
"""Title of each setting; empty if there is only one."""


def _where(ranking: Ranking, titles: Titles) -> str:
    """Returns a ranking's pattern, and its setting if there are several."""
    return f"{pattern_name(ranking.pattern)}{f' on {titles[ranking.setting]}' if titles else ''}"


def _from_half(ranking: Ranking) -> tuple[float, tuple[float, bool, str]]:
    """Sort key: distance of the pattern from 50 %, which most papers report; unstructured patterns first."""
    target = target_sparsity(ranking.pattern)
    return (1.0 if target is None else abs(target - 0.5), pattern_order(ranking.pattern))


def _one_by_one(ranked: Sequence[Ranking], titles: Titles) -> str:
    protocols = {_protocol(r) for r in ranked}
    shared = len(protocols) == 1
    clauses = [
        _leader(ranking, f"at {_where(ranking, titles)}") + ("" if shared else f" ({_protocol(ranking)})")
        for ranking in sorted(ranked, key=lambda r: (titles.get(r.setting, ""), _from_half(r)))
    ]
    on = "" if titles else f"On {ranked[0].setting.model}, "
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
    if score.mark != "only":
        return text
    lost = len(ranking.entries) - 1
    alone = f"the only one with a perplexity ({counted(lost, 'other has', 'others have')} none)"
    return f"{text}, {alone if lost else 'the only method measured'}"


def _by_count(ranked: Sequence[Ranking], titles: Titles) -> str:
    """Names the leaders of each pattern, starting with 50 %."""
    groups: dict[str | None, list[Ranking]] = {}
    for ranking in sorted(ranked, key=_from_half):
        groups.setdefault(ranking.pattern, []).append(ranking)
    shown = list(groups.values())[:PATTERNS]
    clauses = [_leaders(group, titles) for group in shown]
    rest = len(groups) - len(shown)
    verb = "is" if rest == 1 else "are"
    further = f" {counted(rest, 'further pattern')} {verb} in the table." if rest else ""
    return (
        f"Perplexity stays lowest {'; '.join(clauses)} (a ranking is one model, dtype, pattern and text; "
        f"lower is better; the intervals are in the table).{further}"
    )


def _leaders(rankings: Sequence[Ranking], titles: Titles) -> str:
    best = [ranking.entries[0] for ranking in rankings]
    if len(rankings) == 1:
        text = f"at {_where(rankings[0], titles)} with {best[0].label}"
    else:
        wins = Counter(entry.record.cell.method for entry in best).most_common()
        named = [f"{visible(method)} in {n:,}" for method, n in wins[:3]]
        others = [f"others in {sum(n for _, n in wins[3:]):,}"] if len(wins) > 3 else []
        text = (
            f"at {pattern_name(rankings[0].pattern)} with {listed([*named, *others])} "
            f"of {len(rankings):,} rankings"
        )
    ratios = [entry.scores[0].to_dense for entry in best]
    values = sorted(ratio.value for ratio in ratios if ratio is not None)
    if not values:
        return text
    low, high = decimal(values[0]), decimal(values[-1])
    return f"{text}, {low if low == high else f'{low} to {high}'} times dense"


def _cost(ranking: Ranking, titles: Titles) -> str:
    best = ranking.entries[0]
    method_time = best.method_seconds
    took = method_time if method_time is not None else best.end_to_end_seconds
    if took is None:
        return f"What {best.label} cost was not recorded."
    text = f"At {_where(ranking, titles)}, {best.label} took {seconds(took)} s to prune"
    text += " (one run)" if method_time is not None else " (end to end, one run)"
    # A finished checkpoint was pruned elsewhere; its recorded memory is that of the evaluation.
    if best.record.checkpoint is None:
        if (peak := best.peak_device_bytes) is not None:
            text += f" at a peak of {gibibytes(peak)} GiB of device memory"
        elif (peak := best.peak_host_bytes) is not None:
            text += f" at a peak of {gibibytes(peak)} GiB of host memory"
    return f"{text}{_fastest(ranking) if method_time is not None else ''}."


def _fastest(ranking: Ranking) -> str:
    """Names the fastest method on the same kind of machine, and its perplexity relative to the best."""
    best = ranking.entries[0]
    machine = machine_of(best.record)
    here = [e for e in ranking.entries if e.method_seconds is not None and machine_of(e.record) == machine]
    fastest = min(here, key=lambda e: e.method_seconds or 0.0)
    if fastest is best:
        return ""
    text = f"; {fastest.label}, the fastest{'' if len(here) == len(ranking.entries) else ' there'}, "
    text += f"took {seconds(fastest.method_seconds)} s"
    ours, theirs = best.scores[0].value, fastest.scores[0].value
    return text + (f" for {decimal(theirs / ours)} times that perplexity" if ours and theirs else "")


def _nothing_ranked(comparison: Comparison) -> tuple[str, str]:
    failed = len(comparison.failed)
    if not comparison.rankings:
        return (
            f"No cell finished ({counted(failed, 'cell')} failed), so there is nothing to rank.",
            "The reasons are listed below; running the same suite again repeats only what failed.",
        )
    dense = [r.dense for r in comparison.rankings if r.dense is not None and r.dense.scores]
    lost = f"; {counted(failed, 'cell')} failed" if failed else ""
    if any(r.entries for r in comparison.rankings):
        return (
            f"No pruned model has a perplexity to rank it by{lost}.",
            "The table shows the reason in each row.",
        )
    if not dense:
        return f"Nothing was measured that could be ranked{lost}.", "The configurations are listed below."
    ranking = next(r for r in comparison.rankings if r.dense is not None and r.dense.scores)
    score = dense[0].scores[0]
    spread = interval(score.low, score.high)
    return (
        f"Only the dense model was measured{lost}: {ranking.setting.model} has a perplexity of "
        f"{decimal(score.value)}{f' (95 % interval {spread})' if spread else ''} ({_protocol(ranking)}).",
        "There is no pruned record to compare with it yet.",
    )


__all__ = ["Answer", "answer"]
