"""The figures of a report, drawn once in Altair for pages and papers."""

from __future__ import annotations

from collections.abc import Sequence

from reports.charts.drawing import Figure
from reports.charts.layers import block_error, layer_sparsity, ranked_blocks, weights_moved
from reports.charts.pareto import time_against_perplexity
from reports.ranking import Ranking


def figures(rankings: Sequence[Ranking]) -> list[Figure]:
    """The figures for the rankings of one setting, those that have something to show."""
    blocks = ranked_blocks(rankings)
    drawn = (
        time_against_perplexity(rankings),
        weights_moved(blocks),
        block_error(blocks),
        layer_sparsity(blocks),
    )
    return [figure for figure in drawn if figure is not None]


__all__ = ["Figure", "figures"]
