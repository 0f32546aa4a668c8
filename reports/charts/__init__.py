"""The figures of a report, drawn with Altair for both pages and papers."""

from __future__ import annotations

from collections.abc import Sequence

from reports.charts.drawing import Figure
from reports.charts.flips import flips_by_task
from reports.charts.layers import block_error, layer_sparsity, ranked_blocks, weights_moved
from reports.charts.paired import paired_answers
from reports.charts.pareto import pareto_views
from reports.charts.parts import change_by_part
from reports.charts.phases import seconds_by_phase
from reports.charts.recovery import recovery_by_task
from reports.charts.sparsity import quality_against_sparsity
from reports.rankings.ranking import Ranking


def figures(rankings: Sequence[Ranking]) -> list[Figure]:
    """Returns the figures for the rankings of one setting that have something to show."""
    blocks = ranked_blocks(rankings)
    answers = paired_answers(rankings)
    drawn = (
        *pareto_views(rankings),
        quality_against_sparsity(rankings),
        change_by_part(rankings),
        recovery_by_task(answers),
        flips_by_task(answers),
        weights_moved(blocks),
        block_error(blocks),
        layer_sparsity(blocks),
        seconds_by_phase(rankings),
    )
    return [figure for figure in drawn if figure is not None]


__all__ = ["Figure", "figures"]
