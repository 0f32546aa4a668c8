"""`python -m benchmarks.task_correlation RESULTS`: does task accuracy fall when perplexity rises?

Computes Spearman's rank correlation of each task's accuracy (and of KL divergence) with log-perplexity over
the pruned cells of a results tree, with its 95 % interval. Prints one row per task and perplexity protocol.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from methods.errors import InputError
from suite.results import Record, ResultStore
from suite.results.statistics.correlation import rank_correlation
from suite.results.statistics.single import Estimate


@dataclass(frozen=True)
class Row:
    """One correlation."""

    metric: str
    protocol: str
    perplexity: str
    dense: float | None
    correlation: Estimate


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table of correlations."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.task_correlation", description=__doc__)
    parser.add_argument("results", type=Path)
    asked = parser.parse_args(arguments)
    records = [stored.record for stored in ResultStore(asked.results).records().records]
    rows = list(correlations(records))
    if not rows:
        raise InputError(f"{asked.results} holds no pruned cells with tasks and perplexity")
    print("| metric | protocol | dense | rank correlation with log-perplexity | 95 % interval | cells |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        found = row.correlation
        rho = found.status if found.value is None else f"{found.value:+.2f}"
        spread = "" if found.low is None or found.high is None else f"{found.low:+.2f} to {found.high:+.2f}"
        dense = "" if row.dense is None else f"{row.dense:.2f}"
        print(f"| {row.metric} | {row.protocol} | {dense} | {rho} | {spread} | {found.n} |")


def correlations(records: Sequence[Record]) -> Iterator[Row]:
    """Yields a row per accuracy or divergence, over the finished pruned cells that have both numbers."""
    done = [record for record in records if record.status == "complete"]
    pruned = [record for record in done if not record.cell.is_dense]
    dense = next((record for record in done if record.cell.is_dense), None)
    texts = sorted({w.protocol for record in pruned for w in record.windows})
    metrics = sorted(
        {
            (m.name, m.protocol)
            for record in pruned
            for m in record.metrics
            if m.name.startswith("acc") or m.name in ("kl_divergence", "top1_agreement")
        }
    )
    for text in texts:
        for name, protocol in metrics:
            pairs = [
                (math.log(perplexity.value), value.value)
                for record in pruned
                if (perplexity := record.metric("perplexity", text)) and perplexity.value
                if (value := record.metric(name, protocol)) and value.value is not None
            ]
            of_dense = dense.metric(name, protocol) if dense else None
            found = rank_correlation([x for x, _ in pairs], [y for _, y in pairs])
            yield Row(name, protocol, text, of_dense.value if of_dense else None, found)


if __name__ == "__main__":
    sys.exit(main())
