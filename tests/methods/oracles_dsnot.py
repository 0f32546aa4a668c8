"""DSnoT, slowly and plainly, from its paper (arXiv 2310.08915); shares no code with `methods`."""

from collections.abc import Sequence
from math import sqrt

import numpy as np

from tests.methods.oracles import n_of_m


def moments(samples: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over samples of each input's sum over tokens, its variance over all tokens, and its norm."""
    tokens = np.concatenate(samples).astype(np.float64)
    n_inputs = tokens.shape[1]
    sums, variances, norms = np.zeros(n_inputs), np.zeros(n_inputs), np.zeros(n_inputs)
    for j in range(n_inputs):
        values = tokens[:, j].tolist()
        mean = sum(values) / len(values)
        sums[j] = sum(values) / len(samples)
        variances[j] = sum((x - mean) ** 2 for x in values) / len(values)
        norms[j] = sqrt(sum(x * x for x in values))
    return sums, variances, norms


def refine(
    keep: np.ndarray,
    influence: np.ndarray,
    variance: np.ndarray,
    cost: np.ndarray,
    *,
    pattern: str = "0.5",
    power: float = 1.0,
    max_cycles: int = 50,
    threshold: float = 0.1,
    same_sign: bool = False,
) -> np.ndarray:
    """The refined keep-mask: row by row, swap by swap, looking through all candidates each time.

    Args:
        keep: the initial keep-mask `[out, in]`.
        influence: W_ij * s_j.
        variance: of each input.
        cost: |W_ij| * ||X_j||.
    """
    split = n_of_m(pattern)
    refined = keep.copy()
    for row in range(keep.shape[0]):
        m = influence[row].astype(float).tolist()
        price = cost[row].tolist()
        pruned = [j for j, kept in enumerate(keep[row]) if not kept]
        alive = [j for j, kept in enumerate(keep[row]) if kept]

        def rank(j: int, sign: int, m: list[float] = m) -> tuple[float, float, int]:
            """Sorts first what best makes up for an error of `sign`: an input that never varies above all."""
            if power == 0:
                return (-sign * m[j], 0.0, j)
            if variance[j] == 0:
                return (float("-inf"), -sign * m[j], j)
            return (-sign * m[j] / float(variance[j]) ** power, 0.0, j)

        error = sum(m[j] for j in pruned)
        began_above = error > 0
        for _ in range(max_cycles):
            if abs(error) <= threshold:
                break
            sign = 1 if error > 0 else -1
            newcomers = sorted((j for j in pruned if sign * m[j] > 0), key=lambda j, s=sign: rank(j, s))
            if not newcomers:
                break
            comes = newcomers[0]
            if split:
                leavers = [j for j in alive if j // split[1] == comes // split[1]]
            else:
                leavers = [j for j in alive if sign * m[j] < 0]
            if not leavers:
                break
            goes = min(leavers, key=lambda j: (price[j], j))
            after = error + m[goes] - m[comes]
            if (split or same_sign) and (after == 0 or (after > 0) != began_above):
                break
            error = after
            pruned.remove(comes)
            alive.remove(goes)
            refined[row, comes], refined[row, goes] = True, False
    return refined


def dsnot(
    weight: np.ndarray, keep: np.ndarray, samples: Sequence[np.ndarray], **choices: object
) -> np.ndarray:
    """The refined keep-mask of one matrix `[out, in]` that reads `samples`, each `[tokens, in]`."""
    sums, variances, norms = moments(samples)
    weight = weight.astype(np.float64)
    return refine(keep, weight * sums, variances, np.abs(weight) * norms, **choices)
