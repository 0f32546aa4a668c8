"""Fuzzes model folders: `python -m tests.fuzz.folders --n 2000 --out folders.jsonl`.

A small valid model is damaged or decorated at random, then pruned and measured, resident and onload. What may
come of it:

- it is refused as wrong input, in one line that names the model; or
- every number is what plain transformers computes from the same folder; or
- a remark names the difference.

Anything else breaks the law. Whatever plain transformers cannot load, or loads with a warning that it made up
some of the weights, has to be refused. The dense folder is never changed, nothing is left behind after a
refusal, and the two placements agree, but for what onload refuses by name.

Each outcome is appended to `--out` as a line of JSON. Seeds that are there already are not run again, unless
the code has changed since, or other kinds of damage are asked for.
`--only SEED` runs one folder and shows what was found; `--keep FOLDER` leaves a copy of it there. Exits with
1 if the law was broken.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here is on the hub

import torch

from suite.evaluation.speed import reference_speed as efficiency
from suite.models.loading_errors import quiet_transformers
from tests.fuzz.damage import KINDS, bases, damage, write_bases
from tests.fuzz.law import ROOT, Kind, Trial

PATIENCE_S = 300
ASKING = ("tokenizer value", "beside the tokenizer", "generation config", "tokenizer.json")
"""Kinds of damage after which the model is asked prompts too, which is when chat templates are looked at."""


@dataclass(frozen=True)
class Outcome:
    """What came of one folder.

    Attributes:
        seed: makes the same folder again.
        base: the valid model that it was.
        method: what pruned it.
        damage: kind and description of each damage.
        kind: the outcome.
        faults: how the law was broken, a sentence each.
        refusals: the messages, by command.
        remarks: of the records and of `pruning.json`.
        excused: numbers that differ from the library's beside a remark, for a person to look at.
        plain: why plain transformers does not load it; None where it does.
        campaign: a digest of the code and of the kinds of damage that were asked for.
        seconds: how long it took.
    """

    seed: int
    base: str
    method: str
    damage: Sequence[Sequence[str]]
    kind: Kind
    faults: Sequence[str]
    refusals: Mapping[str, str]
    remarks: Sequence[str]
    excused: Sequence[str]
    plain: str | None
    campaign: str
    seconds: float

    def __str__(self) -> str:
        done = "; ".join(f"{kind} ({told})" for kind, told in self.damage) or "nothing"
        return f"seed {self.seed}, {self.base}, {self.method}: {done}"


class Fuzzer:
    """Makes folders of seeds, and tries them.

    Args:
        work: a folder that everything is written to.
    """

    def __init__(self, work: Path) -> None:
        self._work = work
        with _quiet():
            write_bases(work / "bases")
        self._text = work / "text.txt"
        words = ["tree", "lamp", "rain", "book", "moon", "fish"]
        self._text.write_text(" ".join(random.Random(5).choices(words, k=200)))
        self._prompts = work / "prompts.jsonl"
        self._prompts.write_text('{"prompt": "tree lamp"}\n{"prompt": "rain"}\n')

    def try_folder(self, seed: int, kinds: Sequence[str] = (), keep: Path | None = None) -> Outcome:
        """Makes the folder of a seed and holds it to the law.

        Args:
            seed: decides model, damage and method.
            kinds: the kinds of damage that may be done; none = all of them.
            keep: gets a copy of the damaged folder; None = nothing is kept.
        """
        start = time.perf_counter()
        chance = random.Random(seed)
        base, method = chance.choice(list(bases())), chance.choice(["magnitude", "wanda"])
        with tempfile.TemporaryDirectory(dir=self._work) as made:
            folder, out = Path(made) / "model", Path(made) / "out"
            shutil.copytree(self._work / "bases" / base, folder)
            out.mkdir()
            done = damage(folder, chance, kinds)
            if keep is not None:
                shutil.copytree(folder, keep, symlinks=True)
            asks = any(kind in ASKING for kind, _ in done)
            trial = Trial(folder, out, self._text, str(self._prompts) if asks else "none", method)
            with _quiet(), _quick(), _patience():
                kind = trial.run()
            return Outcome(
                seed=seed,
                base=base,
                method=method,
                damage=done,
                kind=kind,
                faults=[fault.replace(made, "") for fault in trial.faults],
                refusals={command: told.replace(made, "") for command, told in trial.refusals.items()},
                remarks=trial.remarks,
                excused=trial.excused,
                plain=trial.plain_error and trial.plain_error.replace(made, ""),
                campaign=campaign_digest(tuple(kinds)),
                seconds=round(time.perf_counter() - start, 2),
            )


def _quick() -> Any:
    """Makes the speed of the machine cheap to measure, which no number depends on."""
    return patch.multiple(efficiency, MATRIX_SIZE=16, SMALL_SIZE=16, SEQLEN=16)


@contextmanager
def _quiet() -> Iterator[None]:
    """Holds back the library's bars and all that is logged: what matters of it is asked for in other ways."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with quiet_transformers():
            yield
    finally:
        logging.disable(before)


@contextmanager
def _patience() -> Iterator[None]:
    """Raises `TimeoutError` in whatever takes far too long, which shows as a fault."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"took longer than {PATIENCE_S} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(PATIENCE_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def finished(out: Path) -> list[dict[str, Any]]:
    """The outcomes in a file; a line that was cut off when its process was killed is taken out."""
    if not out.exists():
        return []
    whole = out.read_bytes()
    kept = whole[: whole.rfind(b"\n") + 1]
    if kept != whole:
        out.write_bytes(kept)
    return [json.loads(line) for line in kept.splitlines()]


def campaign(
    seeds: Sequence[int], out: Path, kinds: Sequence[str] = (), say: Callable[[str], None] = print
) -> list[dict[str, Any]]:
    """Tries the folders of some seeds, but for those whose outcomes are in `out`.

    Args:
        seeds: of the folders.
        out: a file with a line for each outcome; need not exist.
        kinds: the kinds of damage that may be done; none = all of them.
        say: is told of progress, and of broken laws.

    Returns:
        The outcomes of all of them.
    """
    asked = campaign_digest(tuple(kinds))
    known = {outcome["seed"] for outcome in finished(out) if outcome["campaign"] == asked}
    missing = [seed for seed in seeds if seed not in known]
    out.parent.mkdir(parents=True, exist_ok=True)
    start = told = time.monotonic()
    with tempfile.TemporaryDirectory() as work, out.open("a") as lines:
        fuzzer = Fuzzer(Path(work))
        for done, seed in enumerate(missing, 1):
            outcome = fuzzer.try_folder(seed, kinds)
            lines.write(json.dumps(asdict(outcome)) + "\n")
            lines.flush()
            if outcome.kind == "BROKEN":
                say(f"BROKEN: {outcome}: {outcome.faults[0]}")
            now = time.monotonic()
            if now - told > 30 or done == len(missing):
                told = now
                say(f"{done} of {len(missing)} folders, {(now - start) / done:.2f} s each")
    return [
        outcome for outcome in finished(out) if outcome["seed"] in set(seeds) and outcome["campaign"] == asked
    ]


@lru_cache
def campaign_digest(kinds: tuple[str, ...]) -> str:
    """Changes with the code and the kinds of damage, so that outcomes of other code are not taken over."""
    digest = hashlib.sha256(repr(sorted(kinds)).encode())
    for folder in ("methods", "suite", "tests/fuzz"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def summary(outcomes: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table of kinds of damage by outcomes, and the numbers that differ beside a remark.

    A folder with several damages counts for each of them.
    """
    columns: tuple[Kind, ...] = ("refused", "equal", "remarked", "BROKEN")
    counted: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        for kind in {kind for kind, _ in outcome["damage"]} | {"all folders"}:
            counted.setdefault(kind, Counter())[outcome["kind"]] += 1
    rows = [f"{'':24}" + "".join(f"{column:>10}" for column in columns)]
    for kind in sorted(counted, key=lambda kind: (kind == "all folders", kind)):
        rows.append(f"{kind:24}" + "".join(f"{counted[kind][column]:>10}" for column in columns))
    rows += [f"seed {o['seed']}, beside a remark: {one}" for o in outcomes for one in o["excused"]]
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the campaign that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.folders", description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=200, help="how many folders")
    parser.add_argument("--seed", type=int, default=0, help="of the first; the others count up from it")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/fuzz-folders.jsonl"),
        help="outcomes go to the end of this file",
    )
    parser.add_argument(
        "--kind",
        action="append",
        default=[],
        choices=KINDS,
        metavar="KIND",
        help="only this damage; repeatable",
    )
    parser.add_argument("--only", type=int, metavar="SEED", help="run this folder, and show what was found")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="with --only: put a copy of it there")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.only is not None:
        with tempfile.TemporaryDirectory() as work:
            outcome = Fuzzer(Path(work)).try_folder(options.only, options.kind, options.keep)
        print(outcome, *json.dumps(asdict(outcome), indent=1).splitlines(), sep="\n")
        return int(outcome.kind == "BROKEN")
    outcomes = campaign(range(options.seed, options.seed + options.n), options.out, options.kind)
    print(*summary(outcomes), sep="\n")
    return int(any(outcome["kind"] == "BROKEN" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
