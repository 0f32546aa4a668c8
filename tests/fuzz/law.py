"""The law that a damaged model folder is held to (`tests.fuzz.folders`)."""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from math import exp, isclose, isfinite
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from transformers import AutoTokenizer

from methods.errors import InputError, NonFiniteError
from suite.cell import CalibrationSpec
from suite.commands.checkpoints import evaluate, prune
from suite.data.corpora import calibration_set
from tests.fuzz.plain import Plain, PlainError, failing_plainly, wanda_masks

ROOT = Path(__file__).parents[2]
SEQLEN, N_SAMPLES, MAX_TOKENS = 40, 4, 160
TOLERANCE = 1e-4
"""By so much of its value a loss may differ from the library's."""
NEARLY = 0.005
"""Of a mask: ranks of scores that are as good as equal depend on the order of a sum."""
LARGEST_LOSS = 700
"""Beyond it a perplexity is no float any more."""
HUGE = 1e15
"""The products of a weight beyond it may overflow, though the model's losses do not."""
LONGEST = 600
"""Characters that a message may have, less those of the model's name."""
EXPECTED_REMARKS = ("sequences begin with", "sequences do not begin with", "its sparsity was counted from")
"""How remarks begin that are made of every folder that they fit, and name no difference."""

MEASURED = {"magnitude": "resident", "wanda": "onload"}
"""Whose checkpoint is measured, by method: some of both kinds, at the cost of one."""

Weights = Mapping[str, Tensor]
Placement = Literal["resident", "onload"]
PLACEMENTS: tuple[Placement, ...] = get_args(Placement)
Kind = Literal["refused", "equal", "remarked", "BROKEN"]


@dataclass
class Trial:
    """One damaged folder under the law.

    Args:
        folder: the model's.
        work: an empty folder for checkpoints.
        text: what is calibrated and measured on.
        prompts: a file of prompts, or `none`.
        method: what prunes.
    """

    folder: Path
    work: Path
    text: Path
    prompts: str
    method: str
    faults: list[str] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    excused: list[str] = field(default_factory=list)
    n_measured: int = 0
    plain_error: str | None = None

    def run(self) -> Kind:
        """Prunes and measures the folder, and says what came of it."""
        before = _contents(self.folder)
        dense = self._load_plain()
        records = {each: self._evaluate(self.folder, each, dense) for each in PLACEMENTS}
        self._compare_records(records)
        pruned = {each: self._prune(each) for each in PLACEMENTS}
        self._compare_checkpoints(pruned)
        for placement, summary in pruned.items():
            if summary is not None:
                self._check_checkpoint(placement, summary, dense)
        if _contents(self.folder) != before:
            self.faults.append("the dense folder was changed")
        if self.faults:
            return "BROKEN"
        if not self.n_measured:
            return "refused"
        return "remarked" if self.remarks else "equal"

    def _out(self, placement: str) -> Path:
        return self.work / f"pruned-{placement}"

    def _load_plain(self) -> Plain | None:
        """The folder as the library loads it; None where it does not."""
        plain = None
        try:
            plain = Plain.of_folder(self.folder)
            plain.losses(self.text.read_text(), SEQLEN, 1, 0)
        except PlainError as error:
            self.plain_error = " ".join(str(error).split())[:300]
        return plain

    def _evaluate(
        self, folder: Path, placement: Placement, plain: Plain | None, *, what: str = "evaluate"
    ) -> dict[str, Any] | None:
        """The record of a folder, held against the library's numbers; None where it was refused."""
        command = f"{what} {placement}"
        record = self._attempt(
            command,
            folder,
            lambda: evaluate(
                str(folder),
                perplexity=[str(self.text)],
                seqlen=SEQLEN,
                max_tokens=MAX_TOKENS,
                task=["none"],
                prompts=self.prompts,
                max_new_tokens=2,
                speed=False,
                dtype="float32",
                placement=placement,
                device="cpu",
                as_json=True,
            ),
        )
        if record is None:
            return None
        remarks = self._remark(record["warnings"])
        if plain is None:
            self.faults.append(f"{command}: measured, though plain transformers: {self.plain_error}")
            return record
        self._check_left_out(command, plain, remarks)
        (windows,) = record["windows"]
        losses = [float("nan") if loss is None else loss for loss in windows["nll"]]
        try:
            expected = plain.losses(self.text.read_text(), SEQLEN, len(losses), windows["n_first"])
        except PlainError as error:
            self.faults.append(f"{command}: measured, though plain transformers: {error}")
            return record
        (perplexity,) = (m["value"] for m in record["metrics"] if m["name"] == "perplexity")
        mean = sum(expected) / len(expected)
        if not _near(losses, expected):
            self._differ(f"{command}: losses {losses}, by plain transformers {expected}", remarks)
        elif mean < LARGEST_LOSS and not _near([_or_nan(perplexity)], [exp(mean)]):
            self._differ(f"{command}: perplexity {perplexity}, by plain transformers {exp(mean)}", remarks)
        self._check_zeros(command, record, plain)
        return record

    def _differ(self, what: str, remarks: Sequence[str]) -> None:
        """Numbers differ from the library's: a fault, unless a remark may be taken to say so."""
        (self.excused if remarks else self.faults).append(what)

    def _check_left_out(self, command: str, plain: Plain, remarks: Sequence[str]) -> None:
        """Tensors that the library found no place for have to be named."""
        unnamed = [key for key in plain.unexpected if not any(key in remark for remark in remarks)]
        unnamed = [key for key in unnamed if not key.endswith("inv_freq")]
        if unnamed and not any(" more" in remark for remark in remarks):
            self.faults.append(f"{command}: {unnamed[0]} was left out without a remark")

    def _check_zeros(self, command: str, record: Mapping[str, Any], plain: Plain) -> None:
        weights = plain.weights
        for module in record["modules"]:
            weight = weights.get(f"{module['module']}.weight")
            if weight is not None and (found := int((weight == 0).sum())) != module["n_pruned"]:
                self.faults.append(
                    f"{command}: {module['n_pruned']} zeros in {module['module']}, not {found}"
                )
                return

    def _prune(self, placement: Placement) -> dict[str, Any] | None:
        """What `pruning.json` says of the folder's prune; None where it was refused."""
        out = self._out(placement)
        summary = self._attempt(
            f"prune {placement}",
            self.folder,
            lambda: prune(
                str(self.folder),
                out,
                self.method,
                sparsity="0.5",
                calibration=str(self.text),
                n_samples=N_SAMPLES,
                seqlen=SEQLEN,
                dtype="float32",
                placement=placement,
                device="cpu",
                as_json=True,
            ),
        )
        left = sorted(path.name for path in self.work.iterdir() if placement in path.name)
        if left != ([] if summary is None else [out.name]):
            self.faults.append(f"prune {placement}: left {left} behind")
        return summary

    def _check_checkpoint(self, placement: str, summary: Mapping[str, Any], dense: Plain | None) -> None:
        """Holds a written checkpoint against the dense model with a mask on it, as the library loads both."""
        command, out = f"prune {placement}", self._out(placement)
        of_modules = {module["module"] for module in summary["record"]["modules"]}
        of_model = [w for w in summary["record"]["warnings"] if w.partition(": ")[0] not in of_modules]
        remarks = self._remark(of_model)
        if dense is None:
            self.faults.append(
                f"{command}: wrote a checkpoint, though plain transformers: {self.plain_error}"
            )
            return
        try:
            pruned = Plain.of_folder(out)
        except PlainError as error:
            self.faults.append(f"{command}: wrote what plain transformers cannot load: {error}")
            return
        self._check_left_out(command, dense, remarks)
        before = {name: weight.clone() for name, weight in dense.weights.items()}
        self._check_weights(command, before, pruned.weights, summary)
        if self.method == "wanda":
            self._check_wanda(command, dense, pruned, summary)
        self._check_forward(command, dense, pruned)
        dense.holding(before)
        if placement == MEASURED[self.method]:
            other = next(each for each in PLACEMENTS if each != placement)
            self._evaluate(out, other, pruned, what=f"evaluate, pruned {placement},")

    def _check_forward(self, command: str, dense: Plain, pruned: Plain) -> None:
        """The checkpoint computes what the dense model does with its weights."""
        vocabulary = dense.model.get_input_embeddings().weight.shape[0]
        tokens = torch.arange(2 * SEQLEN).reshape(2, SEQLEN) % vocabulary
        try:
            with failing_plainly():
                found, expected = (each.losses_of(tokens) for each in (pruned, dense.holding(pruned.weights)))
        except PlainError as error:
            self.faults.append(f"{command}: the checkpoint does not compute: {error}")
            return
        if not _near(found, expected):
            self.faults.append(
                f"{command}: the checkpoint's losses are {found}, those of its weights in the dense model "
                f"{expected}"
            )

    def _check_weights(
        self, command: str, before: Weights, after: Weights, summary: Mapping[str, Any]
    ) -> None:
        """Every weight is the dense one or 0, as many are 0 as is said, and magnitude took the smallest."""
        if before.keys() != after.keys():
            self.faults.append(f"{command}: {min(before.keys() ^ after.keys())} came or went")
            return
        for name, weight in before.items():
            if not bool(((after[name] == weight) | (after[name] == 0)).all()):
                self.faults.append(f"{command}: {name} is neither dense nor 0")
                return
        n_gone = sum(int(((after[name] == 0) & (weight != 0)).sum()) for name, weight in before.items())
        n_said = sum(module["n_pruned"] for module in summary["record"]["modules"])
        if n_gone > n_said:
            self.faults.append(f"{command}: {n_gone} weights were pruned, {n_said} are said to be")
        for module in summary["record"]["modules"]:
            name, n_zeros = module["module"], summary["n_zeros"][module["module"]]
            if f"{name}.weight" not in before:
                continue
            weight, left = before[f"{name}.weight"], after[f"{name}.weight"]
            if (found := int((left == 0).sum())) != n_zeros:
                self.faults.append(f"{command}: {found} zeros in {name}, {n_zeros} are said to be")
            if module["n_pruned"] * 2 != weight.numel():
                self.faults.append(f"{command}: {module['n_pruned']} of {weight.numel()} pruned in {name}")
            gone = weight[(left == 0) & (weight != 0)].abs()
            kept = left[left != 0].abs()
            if self.method == "magnitude" and len(gone) and len(kept) and gone.max() > kept.min():
                self.faults.append(f"{command}: {name} lost {gone.max()} and kept {kept.min()}")

    def _check_wanda(self, command: str, dense: Plain, pruned: Plain, summary: Mapping[str, Any]) -> None:
        """The zeros are those of a plain Wanda, which prunes the dense model on the way."""
        has_zeros = {name for name, weight in dense.weights.items() if bool((weight == 0).any())}
        layers = {module["module"]: module["layer"] for module in summary["record"]["modules"]}
        masks = wanda_masks(dense.model, self._calibration(summary), layers)
        for name, keep in (masks or {}).items():
            share = float(((pruned.weights[f"{name}.weight"] != 0) != keep).float().mean())
            if share > NEARLY and f"{name}.weight" not in has_zeros:
                self.faults.append(f"{command}: {share:.1%} of the mask of {name} is not Wanda's")

    def _calibration(self, summary: Mapping[str, Any]) -> Tensor:
        spec = CalibrationSpec(
            source=str(self.text),
            n_samples=N_SAMPLES,
            seqlen=SEQLEN,
            first_token="always" if summary["record"]["calibration"]["first_token"] else "never",
        )
        return calibration_set(spec, AutoTokenizer.from_pretrained(self.folder)).input_ids

    def _compare_records(self, records: Mapping[str, dict[str, Any] | None]) -> None:
        resident, onload = records["resident"], records["onload"]
        if resident is None and onload is not None:
            self.faults.append("evaluate: onload measures what resident refuses")
        if resident is not None and onload is not None:
            losses = [[_or_nan(n) for w in each["windows"] for n in w["nll"]] for each in (resident, onload)]
            if not _near(*losses):
                self.faults.append(f"evaluate: losses {losses[0]} resident, {losses[1]} onload")

    def _compare_checkpoints(self, summaries: Mapping[str, dict[str, Any] | None]) -> None:
        resident, onload = summaries["resident"], summaries["onload"]
        if resident is None and onload is not None:
            self.faults.append("prune: onload prunes what resident refuses")
        masks = {summary["record"]["mask_digest"] for summary in (resident, onload) if summary is not None}
        if len(masks) > 1:
            self.faults.append("prune: resident and onload choose other weights")

    def _remark(self, found: Iterable[str]) -> list[str]:
        """Keeps the remarks that name a difference, and returns them."""
        notable = [remark for remark in found if not remark.startswith(EXPECTED_REMARKS)]
        self.remarks += [remark for remark in notable if remark not in self.remarks]
        return notable

    def _attempt(self, command: str, folder: Path, run: Callable[[], None]) -> dict[str, Any] | None:
        """What a command prints as JSON; None where it did not end well."""
        printed = StringIO()
        try:
            with redirect_stdout(printed), redirect_stderr(StringIO()):
                run()
            result: dict[str, Any] = json.loads(printed.getvalue())
        except InputError as error:
            self.refusals[command] = str(error)
            if fault := _fault_of_message(str(error), folder):
                self.faults.append(
                    f"{command}: refused with a message that {fault}: {str(error)[:LONGEST]!r}"
                )
            return None
        except NonFiniteError as error:
            if self._overflows(folder):
                self.refusals[command] = str(error)
            else:
                self.faults.append(f"{command}: {_where(error)}")
            return None
        except Exception as error:
            self.faults.append(f"{command}: {_where(error)}")
            return None
        self.n_measured += 1
        return result

    def _overflows(self, folder: Path) -> bool:
        """Whether finite weights lead to numbers that are not, which only running the model can tell."""
        try:
            plain = Plain.of_folder(folder)
            losses = plain.losses(self.text.read_text(), SEQLEN, 4, 0)
        except PlainError:
            return False
        largest = max(
            float(weight.float().abs().max()) for weight in plain.weights.values() if weight.numel()
        )
        return isfinite(largest) and (largest > HUGE or not all(map(isfinite, losses)))


def _fault_of_message(message: str, folder: Path) -> str | None:
    """What is wrong with the message of a refusal; None where nothing is."""
    if message != message.strip() or "\n" in message or not message.isprintable():
        return "is not one line of text"
    if str(folder) not in message:
        return "does not name the model"
    own = message.replace(str(folder), "")
    if len(own) > LONGEST:
        return f"has {len(own)} characters"
    if len(re.sub(r".*cannot be (loaded|read)[^:]*:", "", own).split()) < 4:
        return "gives no reason that could be read"
    return None


def _where(error: BaseException) -> str:
    """An error with the last place in the project's own code that it passed through."""
    frames = [
        f"{Path(frame.filename).relative_to(ROOT)}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(ROOT / "suite")
        or Path(frame.filename).is_relative_to(ROOT / "methods")
    ]
    place = f" at {frames[-1]}" if frames else ""
    return f"{type(error).__name__}{place}: {' '.join(str(error).split())[:LONGEST]}"


def _near(found: Sequence[float], expected: Sequence[float]) -> bool:
    """Whether losses agree; any that are not finite agree with each other."""
    return len(found) == len(expected) and all(
        isclose(a, b, rel_tol=TOLERANCE, abs_tol=1e-6) or not (isfinite(a) or isfinite(b))
        for a, b in zip(found, expected, strict=True)
    )


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _contents(folder: Path) -> dict[str, bytes | str | None]:
    """Every file below a folder with its bytes, every link with its target."""
    return {
        str(path.relative_to(folder)): (
            str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        )
        for path in folder.rglob("*")
    }


__all__ = ["Kind", "Trial"]
