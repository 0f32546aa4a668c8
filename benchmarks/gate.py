"""`python -m benchmarks.gate`: does the gate find regressions without alarms for noise?

Wanda at 50 % with many calibration seeds is noise: no cell is better than another. The first seeds set the
tolerances (`noise_tolerances`, which uses no other seed); every ordered pair of the other seeds is then one
run of the gate, and every run that exits with 1 is a false alarm. Wanda at 52 % is a regression: each 52 %
cell is gated against the 50 % cell of each noise seed, and the gate should report its perplexity as worse.

Cells that have a record in `--out` are not run again. `--lane 1/2` runs every other cell, so that two
processes share the work (each cell computes with one thread).
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from math import expm1, sqrt
from pathlib import Path

import numpy as np
from scipy import stats

from methods.errors import InputError
from suite import run_suite
from suite.cell import Cell
from suite.planning.suite_cells import parse_suite, plan
from suite.planning.suite_file import SuiteConfig
from suite.results import Record, ResultStore
from suite.results.gate import Entry, Side, Tolerances, Verdict, judge
from suite.results.gate.costs import COSTS
from suite.results.gate.tolerances import TASK, parse_tolerances
from suite.results.statistics.pairing import pair_items

SUITE = """
name = "gate"
models = ["{model}"]
dtype = "float32"
threads = 1
divergence = true
[calibration]
source = "wiki-sample"
n_samples = 16
seqlen = 128
seeds = {seeds}
[[methods]]
name = "wanda"
patterns = ["{pattern}"]
[[perplexity]]
corpus = "wiki-sample"
seqlen = 256
max_tokens = 4096
[[tasks]]
name = "offline"
limit = 20
"""
SAME, WORSE = "0.5", "0.52"
LEVEL = 0.99
"""One-sided level of each metric's tolerance: one in a hundred differences caused by noise is larger."""
ACROSS = ("calibration.seed", "pattern")


@dataclass(frozen=True)
class Seeds:
    """The use of each seed: the first set tolerances, the others are noise, and the last of these also run
    worse.
    """

    n_tolerance: int
    n_null: int
    n_worse: int

    @property
    def tolerance(self) -> range:
        return range(self.n_tolerance)

    @property
    def null(self) -> range:
        return range(self.n_tolerance, self.n_tolerance + self.n_null)

    @property
    def worse(self) -> range:
        end = self.n_tolerance + self.n_null
        return range(end - self.n_worse, end)


@dataclass(frozen=True)
class Rate:
    """Frequency of an event over pairs of seeds, with the jackknife standard error over seeds.

    Pairs that share a seed are not independent, so a binomial error would be too small.
    """

    n: int
    of: int
    stderr: float

    def __str__(self) -> str:
        return f"{self.n} of {self.of} ({100 * self.n / self.of:.1f} ± {100 * self.stderr:.1f} %)"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs missing cells, and prints the verdicts of the gate."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/gate-experiment"))
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--tolerance-seeds", type=int, default=10)
    parser.add_argument("--null-seeds", type=int, default=20)
    parser.add_argument("--worse-seeds", type=int, default=10)
    parser.add_argument("--splits", type=int, default=50, help="random splits of the seeds to try as well")
    parser.add_argument("--lane", default="1/1", help="i/n: run every n-th cell, from the i-th on")
    asked = parser.parse_args(arguments)
    seeds = Seeds(asked.tolerance_seeds, asked.null_seeds, asked.worse_seeds)
    lane, lanes = map(int, asked.lane.split("/"))
    run(seeds, asked.model, asked.out, lane, lanes)
    if lanes > 1:
        print("one lane of the cells is done; run without --lane to compare all cells", file=sys.stderr)
        return
    for line in experiment(asked.out, seeds, asked.model):
        print(line, flush=True)
    if asked.splits:
        print(divisions(asked.out, seeds, asked.model, asked.splits))


def suites(seeds: Seeds, model: str) -> list[SuiteConfig]:
    """Returns the suites of Wanda at 50 % and at 52 %."""
    return [
        parse_suite(SUITE.format(model=model, seeds=of, pattern=pattern).encode(), file="gate")
        for pattern, of in ((SAME, [*seeds.tolerance, *seeds.null]), (WORSE, [*seeds.worse]))
    ]


def cells_of(seeds: Seeds, model: str) -> list[Cell]:
    """Returns every pruned cell of the experiment; dense references are measured with them."""
    return [cell for config in suites(seeds, model) for cell in plan(config) if cell.prunes]


def run(seeds: Seeds, model: str, out: Path, lane: int, lanes: int) -> None:
    """Runs the cells of this lane that have no record."""
    mine = {cell.stem for cell in cells_of(seeds, model)[lane - 1 :: lanes]}
    for config in suites(seeds, model):
        missing = [cell for cell in plan(config) if not ResultStore(out).path_of(cell).exists()]
        if only := [cell.stem for cell in missing if cell.stem in mine]:
            outcome = run_suite(config, out=out, only=only, device="cpu", on_cell=_tell)
            if outcome.failed:
                raise InputError(f"{len(outcome.failed)} cells failed, the first: {outcome.failed[0].reason}")


def _tell(record: Record) -> None:
    print(f"{record.status}  {record.cell.label}", file=sys.stderr)


def experiment(out: Path, seeds: Seeds, model: str) -> Iterator[str]:
    """Gates every pair, and yields lines with the results."""
    entries = entries_of(out, cells_of(seeds, model))
    same = {seed: entries[SAME, seed] for seed in seeds.null}
    worse = {seed: entries[WORSE, seed] for seed in seeds.worse}
    yield f"perplexity at 50 %: {spread([entries[SAME, seed] for seed in (*seeds.tolerance, *seeds.null)])}"
    yield f"perplexity at 52 %: {spread([*worse.values()])}"
    tolerances = noise_tolerances([entries[SAME, seed] for seed in seeds.tolerance])
    yield f"tolerances, from {seeds.n_tolerance} seeds:"
    for name in ("perplexity", "kl_divergence", "top1_agreement", TASK):
        yield f"    {name}: {tolerances.metrics[name].model_dump(exclude_defaults=True)}"
    for title, used in (("these tolerances", tolerances), ("the built-in ones", quality_only())):
        null = {(a, b): gate(same[a], same[b], used) for a, b in permutations(seeds.null, 2)}
        power = {(a, b): gate(same[a], worse[b], used) for a, b in product(same, worse)}
        yield f"with {title}:"
        yield f"    noise, alarms: {rate(null, lambda verdict: verdict.exit_code == 1)}"
        yield f"        by metric: {dict(blamed(null.values()))}"
        yield f"    52 %, perplexity worse: {rate(power, lambda verdict: 'perplexity' in blame(verdict))}"
        yield f"    52 %, alarms: {rate(power, lambda verdict: verdict.exit_code == 1)}"


def spread(entries: Sequence[Entry]) -> str:
    """Formats mean perplexity over seeds, and the standard deviation of its logarithm."""
    logs = np.array([np.mean(entry.record.windows[0].nll) for entry in entries])
    deviation = 100 * float(np.std(logs, ddof=1))
    return f"{np.mean(np.exp(logs)):.1f} on average of {len(logs)} seeds, deviation {deviation:.1f} %"


def divisions(out: Path, seeds: Seeds, model: str, n: int) -> str:
    """Summarizes the alarms of noise over random choices of the tolerance seeds: one choice proves little."""
    entries = entries_of(out, cells_of(seeds, model))
    every = np.array([*seeds.tolerance, *seeds.null])
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(n):
        drawn = rng.permutation(every).tolist()
        tolerances = noise_tolerances([entries[SAME, seed] for seed in drawn[: seeds.n_tolerance]])
        pairs = list(permutations(drawn[seeds.n_tolerance :], 2))
        alarms = [gate(entries[SAME, a], entries[SAME, b], tolerances).exit_code == 1 for a, b in pairs]
        rates.append(100 * float(np.mean(alarms)))
    return (
        f"noise, alarms over {n} random divisions of the seeds: {np.mean(rates):.1f} % on average, "
        f"median {np.median(rates):.1f} %, {min(rates):.1f} to {max(rates):.1f} %"
    )


def entries_of(out: Path, cells: Sequence[Cell]) -> dict[tuple[str, int], Entry]:
    """Returns the records of the cells by pattern and calibration seed."""
    store = ResultStore(out)
    stored = {s.record.cell.digest: s for s in store.records().records if s.record.status == "complete"}
    found = {}
    for cell in cells:
        if cell.digest not in stored:
            raise InputError(f"{out} has no record of {cell.label}; run every lane first")
        assert cell.calibration is not None and cell.pattern is not None
        entry = stored[cell.digest]
        found[cell.pattern, cell.calibration.seed] = Entry(entry.record, entry.path)
    return found


def noise_tolerances(entries: Sequence[Entry]) -> Tolerances:
    """Computes tolerances that noise alone exceeds once in a hundred pairs, per metric.

    A metric of one cell varies over the seeds with standard deviation s, the difference of two cells with
    sqrt(2) s; s is estimated from n seeds only, hence Student's t. Tasks use the largest of their tolerances.
    """
    t = float(stats.t.ppf(LEVEL, len(entries) - 1))
    values: dict[str, dict[str, list[float]]] = {}
    for entry in entries:
        for items in pair_items(
            entry.record, entry.record, first_items=entry.item_values, second_items=entry.item_values
        ):
            name = TASK if items.is_task else items.name
            mean = float(np.mean([value for value in items.first if value is not None]))
            values.setdefault(name, {}).setdefault(items.protocol, []).append(mean)
    reach = {
        name: max(sqrt(2) * t * float(np.std(found, ddof=1)) for found in protocols.values())
        for name, protocols in values.items()
    }
    kl = float(np.mean([m for found in values["kl_divergence"].values() for m in found]))
    text = [
        f"[perplexity]\nrelative = {expm1(reach['perplexity']):.4f}",
        f"[kl_divergence]\nrelative = {reach['kl_divergence'] / kl:.4f}",
        f"[top1_agreement]\nabsolute = {reach['top1_agreement']:.4f}",
        f"[task]\nabsolute = {reach[TASK]:.4f}",
    ]
    return quality_only("\n".join(text))


def quality_only(text: str = "") -> Tolerances:
    """Returns tolerances without costs, because the cells ran beside others, which affects their times."""
    ignored = "".join(f"\n[{name}]\nignore = true" for name in COSTS)
    return parse_tolerances((text + ignored).encode(), file="of the experiment")


def gate(baseline: Entry, candidate: Entry, tolerances: Tolerances) -> Verdict:
    """Runs the gate over one cell."""
    return judge(Side("baseline", (baseline,)), Side("candidate", (candidate,)), tolerances, ACROSS)


def blame(verdict: Verdict) -> list[str]:
    """Returns the names of the metrics that are worse."""
    return [metric.name for cell in verdict.cells for metric in cell.metrics if metric.outcome == "worse"]


def blamed(verdicts: Iterator[Verdict] | Sequence[Verdict]) -> Counter[str]:
    """Counts how often each metric was worse."""
    return Counter(name for verdict in verdicts for name in blame(verdict))


def rate(verdicts: dict[tuple[int, int], Verdict], happened: Callable[[Verdict], bool]) -> Rate:
    """Returns how often an event happened, and its standard error over the seeds."""
    yes = {pair: happened(verdict) for pair, verdict in verdicts.items()}
    every = sorted({seed for pair in yes for seed in pair})
    without = [float(np.mean([hit for pair, hit in yes.items() if seed not in pair])) for seed in every]
    n = len(every)
    stderr = sqrt((n - 1) / n * float(np.sum((np.array(without) - np.mean(without)) ** 2)))
    return Rate(sum(yes.values()), len(yes), stderr)


if __name__ == "__main__":
    sys.exit(main())
