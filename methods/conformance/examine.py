"""Runs one case and returns its outcome."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from methods.base import CalibrationSet, LayerReport, Placement, PruneResult
from methods.conformance.case import Case
from methods.conformance.checks import (
    Before,
    check_left_as_it_was,
    check_reported,
    check_result,
    check_state,
    check_untouched,
    check_weights,
    nothing_reported,
)
from methods.conformance.failures import (
    check_failure,
    check_names_module,
    check_one_line,
    crash,
    names_target,
    silence,
    unnamed,
)
from methods.conformance.outcome import Broken, BrokenPromiseError, Outcome, Verdict
from methods.conformance.situations import ORDINARY, Expectation
from methods.contract import check_contract
from methods.errors import ContractError, InputError, PruningError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def examine(case: Case) -> Outcome:
    """Runs `case` on a fresh model; errors of the method become part of the outcome."""
    try:
        return _Examination(case).outcome()
    except BrokenPromiseError as error:
        found = error.broken
        return Outcome(
            Verdict.BROKEN, broken=Broken(found.promise, f"{case.where}: {found.seen}", found.advice)
        )


class _Examination:
    """Runs one case: builds its model, prunes it, and checks the promises."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.method = case.method
        self.situation = case.situation
        self.model: PreTrainedModel = case.family.build(self.situation.dtype)
        self.named = self.situation.prepare(self.model, case.family) if self.situation.prepare else None
        if self.situation.training:
            self.model.train()
            self.model.config.use_cache = True
            for position, parameter in enumerate(self.model.parameters()):
                parameter.requires_grad_(position % 2 == 0)
        self.before = Before.of(self.model)
        self.matrices = case.family.matrices(self.before.state.weights)
        self.pattern = self.situation.pattern_for(case.pattern, self.matrices)
        self.reported: list[LayerReport] = []
        self.expected = self.situation.expects.of(needs_calibration=self.method.needs_calibration)

    def outcome(self) -> Outcome:
        """Prunes the model and returns the outcome."""
        try:
            result = self._prune(interrupt=self.expected is Expectation.ENDS)
        except _Interruption:
            self._check_state("after on_layer raised")
            return Outcome(Verdict.KEPT)
        except InputError as error:
            return self._refused(error)
        except PruningError as error:
            self._check_state("after a PruningError")
            check_failure(error, self.expected, self.named, self.matrices)
            return Outcome(Verdict.KEPT)
        except BrokenPromiseError:
            raise
        except Exception as error:  # a method may raise anything; it is reported as a broken promise
            raise crash(error, self.expected, type(self.method)) from error
        self._succeeded(result)
        return Outcome(Verdict.KEPT)

    def _prune(self, *, interrupt: bool = False) -> PruneResult:
        reports: list[LayerReport] = []

        def on_layer(report: LayerReport) -> None:
            reports.append(report)
            if interrupt:
                raise _Interruption

        calibration = self._calibration()
        digest = None if calibration is None else calibration.digest
        result: object = self.method.prune(
            self.model,
            self.pattern,
            calibration,
            placement=Placement(self.situation.batch_size),
            on_layer=on_layer,
        )
        if calibration is not None and calibration.digest != digest:
            raise BrokenPromiseError(
                4, "the calibration set's token ids were changed", "Work on a copy of calibration.input_ids."
            )
        self.reported = reports
        return check_result(result)

    def _calibration(self) -> CalibrationSet | None:
        """Returns the calibration set; None if the method needs none, as in a suite."""
        if self.situation.without_calibration or not self.method.needs_calibration:
            return None
        return self.situation.calibration()

    def _succeeded(self, result: PruneResult) -> None:
        if self.expected in (Expectation.FAILS, Expectation.REFUSES, Expectation.ENDS):
            if self.expected is Expectation.ENDS and not self.reported:
                raise nothing_reported()
            raise silence(self.expected)
        check_left_as_it_was(self.before, self.model)
        check_weights(self.method, self.case.family, self.pattern, self.before, self.model, result)
        try:
            check_contract(self.method, self.pattern, self.before.state, self.model, result)
        except ContractError as error:
            raise BrokenPromiseError(error.promise, str(error), error.advice) from error
        if self.expected is Expectation.UNCHANGED:
            self._check_unchanged(result)
        reports = self.reported
        self._check_repeatable(result)
        check_reported(reports, result)

    def _refused(self, error: InputError) -> Outcome:
        self._check_state("after an InputError")
        check_untouched(
            self.before,
            self.model,
            5,
            "although prune() refused with an InputError",
            "Check everything first, and write weights after.",
        )
        line = check_one_line(error)
        if self.expected is Expectation.REFUSES:
            if self.situation.without_calibration or names_target(line, self.matrices):
                return Outcome(Verdict.KEPT)
            # A method without N:M support names the pattern, not the module that it does not fit.
            return self._refused_altogether(line, "2:4", unnamed(line))
        if self.expected is Expectation.FAILS:
            try:
                check_names_module(error, self.named, self.matrices)
            except BrokenPromiseError as silent:
                return self._refused_altogether(line, self.case.pattern, silent)
            return Outcome(Verdict.KEPT)
        return Outcome(Verdict.REFUSED, refusal=line)

    def _refused_altogether(self, line: str, pattern: str, otherwise: BrokenPromiseError) -> Outcome:
        """Returns a refusal if `pattern` is refused in an ordinary situation too; else raises `otherwise`."""
        ordinary = replace(self.case, pattern=pattern, situation=ORDINARY[0])
        if examine(ordinary).verdict is Verdict.REFUSED:
            return Outcome(Verdict.REFUSED, refusal=line)
        raise otherwise

    def _check_state(self, when: str) -> None:
        """Checks promise 4 after a prune that did not finish."""
        try:
            check_left_as_it_was(self.before, self.model)
            check_state(self.before, self.model)
        except BrokenPromiseError as error:
            found = error.broken
            raise BrokenPromiseError(found.promise, f"{found.seen} ({when})", found.advice) from error

    def _check_unchanged(self, result: PruneResult) -> None:
        if dropped := [name for name, mask in result.keep.items() if mask.n_kept != mask.numel]:
            raise BrokenPromiseError(
                2, f"{dropped[0]}: weights were removed at sparsity 0", "Keep all weights at sparsity 0."
            )
        check_untouched(
            self.before,
            self.model,
            1,
            "at sparsity 0",
            "If no weight is removed there is no error to compensate: write nothing.",
        )

    def _check_repeatable(self, result: PruneResult) -> None:
        """Checks promise 3 by a second prune of the same weights, without a new seed."""
        self.before.restore(self.model)
        try:
            again = self._prune()
        except BrokenPromiseError:
            raise
        except Exception as error:  # a method may raise anything
            raise BrokenPromiseError(
                3,
                f"a second prune of the same weights failed: {type(error).__name__}: {error}",
                "Keep nothing from one prune to the next, neither in the method nor in the model.",
            ) from error
        if differing := [name for name in result.keep if again.keep.get(name) != result.keep[name]]:
            raise BrokenPromiseError(
                3,
                f"{differing[0]}: a second prune of the same weights gave another mask "
                f"({len(differing)} of {len(result.keep)} differ)",
                "Draw random numbers from a torch.Generator whose seed is a setting of the method; "
                "break ties by position (methods.prune_lowest does).",
            )


class _Interruption(Exception):  # noqa: N818  # it ends a prune and is no error
    """Raised by the caller's on_layer, to interrupt a prune."""


__all__ = ["examine"]
