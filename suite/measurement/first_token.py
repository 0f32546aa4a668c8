"""Whether a model needs the token that its tokenizer puts first: measured on the dense model, both ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from suite.evaluation.body import steps_each
from suite.evaluation.windows import score_windows
from suite.results.perplexity import perplexity_from_nll

if TYPE_CHECKING:
    from suite.corpora import EvaluationWindows
    from suite.models import LoadedModel
    from suite.phases import PhaseLog

LOWERS_BY = 0.1
"""From such a share of its perplexity on, a model is taken to need its first token."""


@dataclass(frozen=True)
class FirstTokenProbe:
    """The same text cut by both protocols, a few windows of each.

    Attributes:
        without: windows of text alone.
        led: windows that begin with the tokenizer's first tokens.
    """

    without: EvaluationWindows
    led: EvaluationWindows


@dataclass(frozen=True)
class FirstTokenChoice:
    """What was chosen for a model, and why.

    Attributes:
        taken: whether sequences begin with the first token.
        remark: both perplexities, a sentence.
    """

    taken: bool
    remark: str


def choose_first_token(loaded: LoadedModel, probe: FirstTokenProbe, log: PhaseLog) -> FirstTokenChoice:
    """Takes the first token where it lowers the dense model's perplexity by more than `LOWERS_BY`.

    Args:
        loaded: the dense model.
        probe: what it is measured on.
        log: is charged the time.
    """
    both = (probe.without, probe.led)
    n_windows = sum(len(windows.input_ids) for windows in both)
    with log.timed("first token", n_windows * steps_each(loaded.model, loaded.placement)):
        without, led = (
            perplexity_from_nll(
                score_windows(
                    loaded.model,
                    windows.input_ids,
                    placement=loaded.placement,
                    n_first=windows.n_first,
                    on_windows=log.stepped,
                ).nll.tolist()
            )
            for windows in both
        )
    taken = led.value is not None and (without.value is None or led.value < (1 - LOWERS_BY) * without.value)
    begin = "begin" if taken else "do not begin"
    shown = [f"{found.value:.4g}" if found.value is not None else found.status for found in (led, without)]
    return FirstTokenChoice(
        taken,
        f"sequences {begin} with the tokenizer's first token: the dense model's perplexity is {shown[0]} "
        f"with it ({probe.led.protocol}, {led.n} windows) and {shown[1]} without it "
        f"({probe.without.protocol}, {without.n} windows)",
    )


__all__ = ["LOWERS_BY", "FirstTokenChoice", "FirstTokenProbe", "choose_first_token"]
