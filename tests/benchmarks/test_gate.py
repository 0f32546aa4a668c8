"""The experiment on the gate, on records made up with known noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.gate import SAME, WORSE, Seeds, cells_of, entries_of, experiment, main, noise_tolerances, rate
from methods.errors import InputError
from suite import SuiteOutcome
from suite.results import ResultStore
from tests.suite.results.gate.contestants import asked, divergence, losses, record

pytestmark = pytest.mark.slow

SEEDS = Seeds(n_tolerance=8, n_null=5, n_worse=4)
N_ITEMS = 20


def write_experiment(folder: Path, noise: float, loss: float) -> None:
    """Records whose log perplexities differ by seed with deviation `noise`, and by `loss` at 52 %."""
    rng = np.random.default_rng(0)
    items = 3.5 + 0.2 * rng.standard_normal(N_ITEMS)
    for cell in cells_of(SEEDS, "smollm2-135m"):
        move = noise * rng.standard_normal() + (loss if cell.pattern == WORSE else 0.0)
        spread = 0.01 * rng.standard_normal(N_ITEMS)
        nll = tuple((items + move + spread).tolist())
        kl = tuple((0.8 + move + spread).tolist())
        ResultStore(folder).write(
            record(
                cell=cell,
                windows=(losses(nll),),
                divergences=(divergence(kl, tuple((0.6 + 0 * spread).tolist())),),
                tasks=(asked("10" * 10),),
            )
        )


def test_noise_passes_and_a_loss_well_above_it_is_found(tmp_path: Path) -> None:
    write_experiment(tmp_path, noise=0.01, loss=0.1)
    lines = list(experiment(tmp_path, SEEDS, "smollm2-135m"))
    own = lines[lines.index("with these tolerances:") :][:5]
    assert own[1] == "    noise, alarms: 0 of 20 (0.0 ± 0.0 %)"
    assert own[3].startswith("    52 %, perplexity worse: 20 of 20 (100.0")
    built_in = lines[lines.index("with the built-in ones:") :]
    assert not built_in[1].startswith("    noise, alarms: 0 of 20"), "1 % is less than this noise"


def test_tolerances_are_those_of_noise_and_come_from_their_own_seeds_alone(tmp_path: Path) -> None:
    write_experiment(tmp_path, noise=0.02, loss=0.1)
    entries = entries_of(tmp_path, cells_of(SEEDS, "smollm2-135m"))
    found = noise_tolerances([entries[SAME, seed] for seed in SEEDS.tolerance])
    logs = [np.mean(entries[SAME, seed].record.windows[0].nll) for seed in range(8)]
    # Student's t of 0.99 with 7 degrees of freedom, from a table: 2.998.
    expected = np.expm1(2.998 * np.sqrt(2) * np.std(logs, ddof=1))
    assert found.metrics["perplexity"].relative == pytest.approx(expected, abs=2e-4)
    assert found.metrics["prune_seconds"].ignore
    assert not set(SEEDS.tolerance) & set(SEEDS.null)


def test_rates_have_an_error_over_seeds() -> None:
    # Seed 0 alone raises all alarms: half of the pairs of three seeds are not worth as many as they are.
    yes = {(a, b): a == 0 for a in range(4) for b in range(4) if a != b}
    found = rate(yes, lambda happened: bool(happened))  # type: ignore[arg-type]
    assert (found.n, found.of) == (3, 12)
    assert found.stderr == pytest.approx(0.25, abs=0.01)


def test_cells_that_were_not_run_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run every lane first"):
        entries_of(tmp_path, cells_of(SEEDS, "smollm2-135m"))


def test_a_finished_experiment_runs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_experiment(tmp_path, noise=0.01, loss=0.1)

    asked_for: list[str] = []

    def run_suite(_: object, *, only: list[str], **__: object) -> SuiteOutcome:
        asked_for.extend(only)
        return SuiteOutcome((), (), (), (), tmp_path, None)

    monkeypatch.setattr("benchmarks.gate.run_suite", run_suite)
    main(
        [
            *("--out", str(tmp_path), "--splits", "2"),
            *("--tolerance-seeds", "8", "--null-seeds", "5", "--worse-seeds", "4"),
        ]
    )
    assert asked_for == []
    shown = capsys.readouterr().out
    assert "with the built-in ones:" in shown
    assert "noise, alarms over 2 random divisions of the seeds: " in shown
