"""Perplexity and divergence from the dense model on a cell's texts, in one pass over each text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from methods.base import token_digest
from suite.evaluation.measured import Measured, finite
from suite.evaluation.scoring.decoder_pass import steps_each
from suite.evaluation.scoring.windows import score_windows
from suite.results.records.items import WindowDivergence, WindowLosses
from suite.results.statistics.metrics import DIVERGENCES, LOSSES, item_metrics, window_rows

if TYPE_CHECKING:
    from suite.cell import PerplexitySpec
    from suite.data.corpora import EvaluationWindows
    from suite.evaluation.dense_reference import DenseReference
    from suite.machine.phases import PhaseLog
    from suite.models.loading import LoadedModel


def measure_text(
    loaded: LoadedModel,
    spec: PerplexitySpec,
    windows: EvaluationWindows,
    reference: DenseReference,
    log: PhaseLog,
    measured: Measured,
    *,
    is_dense: bool,
    divergence: bool,
) -> None:
    """Measures a model on one text.

    Args:
        loaded: the model.
        spec: the text.
        windows: the text's tokens.
        reference: stores the dense model's hidden states and head, or provides them for a pruned model.
        log: records the time.
        measured: receives losses, metrics and rows.
        is_dense: whether this is the dense model.
        divergence: whether pruned models are compared with the dense one on this text.
    """
    protocol = windows.protocol
    steps = len(windows.input_ids) * steps_each(loaded.model, loaded.placement)
    keeps, compares = divergence and is_dense, divergence and not is_dense
    with log.timed(f"evaluate {protocol}", steps):
        scores = score_windows(
            loaded.model,
            windows.input_ids,
            placement=loaded.placement,
            n_first=windows.n_first,
            dense_hidden=reference.hidden[spec] if compares else None,
            dense_head=reference.head if compares else None,
            keep_hidden=keeps,
            keep_head=keeps and reference.keeps_head and reference.head is None,
            on_windows=log.stepped,
        )
    measured.remarks += [f"{protocol}: {remark}" for remark in scores.remarks]
    if scores.hidden is not None:
        reference.hidden[spec] = scores.hidden
        reference.seconds[spec] = log.costs[-1].seconds
    if scores.head is not None:
        reference.head = scores.head
    losses = WindowLosses(
        protocol=protocol,
        corpus_digest=windows.corpus_digest,
        corpus_revision=windows.corpus_revision,
        seqlen=spec.seqlen,
        limit=windows.limit,
        n_first=windows.n_first,
        nll=finite(scores.nll.tolist()),
    )
    measured.windows.append(losses)
    measured.metrics += item_metrics(LOSSES, losses)
    values = {"nll": losses.nll}
    if scores.kl is not None and scores.agreement is not None:
        found = WindowDivergence(
            protocol=protocol, kl=finite(scores.kl.tolist()), agreement=finite(scores.agreement.tolist())
        )
        measured.divergences.append(found)
        measured.metrics += item_metrics(DIVERGENCES, found)
        values |= {"kl": found.kl, "agreement": found.agreement}
    digests = [token_digest(tokens) for tokens in windows.input_ids]
    for metric, of_windows in values.items():
        measured.rows += window_rows(protocol, metric, digests, of_windows, losses.n_predicted)


__all__ = ["measure_text"]
