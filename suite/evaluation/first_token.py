"""Decides whether a model needs the tokenizer's first token: measures the dense model with and without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from suite.evaluation.scoring.decoder_pass import steps_each
from suite.evaluation.scoring.windows import score_windows
from suite.results.statistics.perplexity import perplexity_from_nll

if TYPE_CHECKING:
    from torch import Tensor

    from suite.machine.phases import PhaseLog
    from suite.models.loading import LoadedModel
    from suite.results.statistics.single import Estimate

LOWERS_BY = 0.1
"""A model needs its first token if this lowers its perplexity by more than this share."""


PROBED_WINDOWS = 10
"""Maximum number of windows measured with, and without, the first token."""


@dataclass(frozen=True)
class FirstTokenProbe:
    """Windows on which a model is measured with the tokenizer's first tokens, and without them.

    Attributes:
        source: the corpus or file.
        led: windows, int64 `[n, seqlen]`, each beginning with the first tokens.
        n_first: number of first tokens; less than seqlen - 1.
    """

    source: str
    led: Tensor
    n_first: int


@dataclass(frozen=True)
class FirstTokenChoice:
    """The choice for a model, and the reason.

    Attributes:
        taken: whether sequences begin with the first token.
        remark: a sentence with both perplexities.
    """

    taken: bool
    remark: str


def choose_first_token(
    loaded: LoadedModel, probe: FirstTokenProbe, log: PhaseLog, *, whose: str = "the dense model's"
) -> FirstTokenChoice:
    """Chooses the first token if it lowers a model's perplexity by more than `LOWERS_BY`.

    Args:
        loaded: the dense model, if there is one.
        probe: the windows to measure on.
        log: records the time.
        whose: the owner of the perplexity in the text of the remark.
    """
    n_windows = len(probe.led)
    with log.timed("first token", 2 * n_windows * steps_each(loaded.model, loaded.placement)):
        without = _perplexity(loaded, probe.led[:, probe.n_first :], 0, log)
        led = _perplexity(loaded, probe.led, probe.n_first, log)
    taken = led.value is not None and (without.value is None or led.value < (1 - LOWERS_BY) * without.value)
    begin = "begin" if taken else "do not begin"
    shown = [f"{found.value:.4g}" if found.value is not None else found.status for found in (led, without)]
    return FirstTokenChoice(
        taken,
        f"sequences {begin} with the tokenizer's first token: on {n_windows} x {probe.led.shape[1]} tokens "
        f"of {probe.source} {whose} perplexity is {shown[0]} with it and {shown[1]} without it",
    )


def _perplexity(loaded: LoadedModel, input_ids: Tensor, n_first: int, log: PhaseLog) -> Estimate:
    scores = score_windows(
        loaded.model, input_ids, placement=loaded.placement, n_first=n_first, on_windows=log.stepped
    )
    return perplexity_from_nll(scores.nll.tolist())


__all__ = ["LOWERS_BY", "PROBED_WINDOWS", "FirstTokenChoice", "FirstTokenProbe", "choose_first_token"]
