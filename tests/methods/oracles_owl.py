"""OWL, slowly and plainly, from its paper (arXiv 2310.05175); shares no code with `methods`."""

from collections.abc import Sequence

import numpy as np


def outlier_share(layer: Sequence[tuple[np.ndarray, Sequence[np.ndarray]]], threshold: float) -> float:
    """D of one decoder layer, in percent; `layer` holds each matrix `[out, in]` and the samples it reads."""
    scores: list[float] = []
    for weight, samples in layer:
        tokens = np.concatenate(samples).astype(np.float64)
        norms = np.sqrt((tokens**2).sum(0))
        for row in weight.astype(np.float64):
            scores += [abs(w) * norm for w, norm in zip(row.tolist(), norms.tolist(), strict=True)]
    mean = sum(scores) / len(scores)
    return 100 * sum(score > threshold * mean for score in scores) / len(scores)


def layer_sparsities(
    shares: Sequence[float], sizes: Sequence[int], sparsity: float, max_deviation: float
) -> list[float]:
    """The authors' formula; a layer of size n stands for n layers of one weight, so that sizes count."""
    shares = np.repeat(np.asarray(shares, dtype=np.float64), sizes)
    if shares.max() == shares.min():
        return [sparsity] * len(sizes)
    kept = (shares - shares.min()) * (1 / (shares.max() - shares.min()) * max_deviation * 2)
    kept = kept - np.mean(kept) + (1 - sparsity)
    ends = np.cumsum(sizes) - 1
    return (1 - kept)[ends].tolist()
