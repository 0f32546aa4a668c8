"""RIA, slowly and plainly, from its paper (arXiv 2402.12419); shares no code with `methods`."""

import numpy as np

from tests.methods.oracles import drop_lowest, keep_in_groups_of_m, n_of_m, share


def ria_scores(weight: np.ndarray, squared_norms: np.ndarray, power: float) -> np.ndarray:
    """Relative importance times activation, one weight after the other, in the dtype of `weight`."""
    number = weight.dtype.type
    scores = np.zeros_like(weight)
    for i in range(weight.shape[0]):
        for j in range(weight.shape[1]):
            size = abs(weight[i, j])
            if size == 0:
                continue
            column = number(sum(abs(w) for w in weight[:, j]))
            row = number(sum(abs(w) for w in weight[i]))
            activation = number(number(squared_norms[j]) ** number(0.5)) ** number(power)
            scores[i, j] = (size / column + size / row) * activation
    return scores


def ria_keep(scores: np.ndarray, pattern: str, group: str) -> np.ndarray:
    """Keep-mask `[out, in]`; of equal scores the lower flat index goes first."""
    if split := n_of_m(pattern):
        return keep_in_groups_of_m(scores, *split)
    if group == "output":
        return np.array([drop_lowest(row.tolist(), share(row.size, pattern)) for row in scores])
    return np.array(drop_lowest(scores.ravel().tolist(), share(scores.size, pattern))).reshape(scores.shape)


def ria(
    weight: np.ndarray, samples: list[np.ndarray], pattern: str, *, power: float = 0.5, group: str = "layer"
) -> np.ndarray:
    """Keep-mask of one matrix that reads `samples`, each `[tokens, in]`."""
    squares = np.zeros(weight.shape[1])
    for sample in samples:
        for token in sample:
            squares += token.astype(np.float64) ** 2
    return ria_keep(ria_scores(weight, squares, power), pattern, group)
