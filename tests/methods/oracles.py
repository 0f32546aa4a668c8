"""Slow, plain implementations of the methods, written from their papers; they share no code with `methods`.

They loop over single weights, columns and samples, in float64, and run the whole model for whatever they need
to know of it. A pattern is given as it is written, `0.5` or `2:4`.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from math import sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Place = tuple[str, int, int]
"""(Linear, row, column)."""


# --- Selection -------------------------------------------------------------------------------------


def n_of_m(pattern: str) -> tuple[int, int] | None:
    """N and M, or None for a sparsity."""
    if ":" not in pattern:
        return None
    n, m = pattern.split(":")
    return int(n), int(m)


def share(count: int, ratio: str) -> int:
    """floor(count * ratio) for a ratio written as a decimal."""
    return int(count * Fraction(ratio) // 1)


def drop_lowest(scores: Sequence[float], k: int) -> list[bool]:
    """Which of `scores` survive when the k lowest go, of equal ones the earlier first."""
    order = sorted(range(len(scores)), key=lambda i: (scores[i], i))
    gone = set(order[:k])
    return [i not in gone for i in range(len(scores))]


def keep_in_groups_of_m(scores: np.ndarray, n: int, m: int) -> np.ndarray:
    """The N highest of every M consecutive scores of a row survive."""
    keep = np.ones(scores.shape, dtype=bool)
    for row in range(scores.shape[0]):
        for start in range(0, scores.shape[1], m):
            keep[row, start : start + m] = drop_lowest(scores[row, start : start + m].tolist(), m - n)
    return keep


# --- Magnitude, Wanda, SparseGPT: one Linear -------------------------------------------------------


def magnitude(weight: np.ndarray, pattern: str) -> np.ndarray:
    """Keep-mask of one Linear `[out, in]`: the smallest |W| of the whole Linear go."""
    scores = np.abs(weight)
    if split := n_of_m(pattern):
        return keep_in_groups_of_m(scores, *split)
    return np.array(drop_lowest(scores.ravel().tolist(), share(weight.size, pattern))).reshape(weight.shape)


def wanda(weight: np.ndarray, samples: Iterable[np.ndarray], pattern: str) -> np.ndarray:
    """Keep-mask by |W_ij| * ||X_j||_2, compared within a row; `samples` are `[tokens, in]`."""
    squares = np.zeros(weight.shape[1])
    for sample in samples:
        for token in sample:
            squares += token.astype(np.float64) ** 2
    scores = np.zeros(weight.shape)
    for i, row in enumerate(weight):
        for j, w in enumerate(row):
            scores[i, j] = abs(w) * sqrt(squares[j])
    if split := n_of_m(pattern):
        return keep_in_groups_of_m(scores, *split)
    return np.array([drop_lowest(row.tolist(), share(row.size, pattern)) for row in scores])


def hessian(samples: Sequence[np.ndarray]) -> np.ndarray:
    """(2 / n_samples) * X^T X for samples `[tokens, in]`."""
    total = np.zeros((samples[0].shape[1],) * 2)
    for sample in samples:
        for token in sample.astype(np.float64):
            total += np.outer(token, token)
    return total * 2 / len(samples)


def sparsegpt(
    weight: np.ndarray, hessian: np.ndarray, pattern: str, width: int = 128, damping: float = 0.01
) -> tuple[np.ndarray, np.ndarray]:
    """Keep-mask and new weight of one Linear, by optimal brain surgery column after column.

    Once a column is settled it leaves the problem: it is eliminated from the inverse Hessian (equation 4 of
    arXiv 2301.00774), and what is left is the inverse Hessian of the columns still to be settled. Removing
    weight w_j costs w_j^2 / [H^-1]_jj and moves the rest of its row by -w_j * [H^-1]_j: / [H^-1]_jj.
    """
    weight, hessian = weight.astype(np.float64), hessian.astype(np.float64)
    rows, columns = weight.shape
    for j in range(columns):
        if hessian[j, j] == 0:
            hessian[j, j] = 1
            weight[:, j] = 0
    hessian += damping * np.mean(np.diag(hessian)) * np.eye(columns)

    remaining = np.linalg.inv(hessian)
    inverse_rows = []
    for _ in range(columns):
        inverse_rows.append(remaining[0])
        remaining = (remaining - np.outer(remaining[:, 0], remaining[0]) / remaining[0, 0])[1:, 1:]

    def cost(i: int, j: int) -> float:
        return float(weight[i, j] ** 2 / inverse_rows[j][0])

    split = n_of_m(pattern)
    keep = np.ones(weight.shape, dtype=bool)
    for j in range(columns):
        if split is None and j % width == 0:
            block = [(i, c) for i in range(rows) for c in range(j, min(j + width, columns))]
            survives = drop_lowest([cost(i, c) for i, c in block], share(len(block), pattern))
            for place, kept in zip(block, survives, strict=True):
                keep[place] = kept
        if split is not None and j % split[1] == 0:
            n, m = split
            for i in range(rows):
                keep[i, j : j + m] = drop_lowest([cost(i, c) for c in range(j, j + m)], m - n)
        for i in range(rows):
            if not keep[i, j]:
                weight[i, j:] -= weight[i, j] / inverse_rows[j][0] * inverse_rows[j]
                weight[i, j] = 0
    return keep, weight


# --- LLM-Barber: the rebuild -----------------------------------------------------------------------


def comparison_groups(shapes: Mapping[str, tuple[int, int]], granularity: str) -> list[list[Place]]:
    """The sets of places inside which the scores of a block's Linears compete, each in flat order."""
    groups: dict[Any, list[Place]] = {}
    for name, (rows, columns) in shapes.items():
        for i in range(rows):
            for j in range(columns):
                key = {"output": (name, i), "input": (name, "column", j), "layer": name, "block": None}
                groups.setdefault(key[granularity], []).append((name, i, j))
    return list(groups.values())


def swapped_pairs(kept: Sequence[bool], scores: Sequence[float], ratio: str) -> list[tuple[int, int]]:
    """(who comes back, who goes) in one comparison group."""
    pruned = sorted((i for i, k in enumerate(kept) if not k), key=lambda i: (-scores[i], i))
    alive = sorted((i for i, k in enumerate(kept) if k), key=lambda i: (scores[i], i))
    pairs = list(zip(pruned, alive, strict=False))
    profitable = [pair for pair in pairs if scores[pair[0]] > scores[pair[1]]]
    return pairs[: share(len(profitable), ratio)]


def barber_rebuild(
    keep: Mapping[str, np.ndarray], scores: Mapping[str, np.ndarray], granularity: str, ratio: str
) -> dict[str, np.ndarray]:
    """The new keep-masks of the Linears of one block."""
    rebuilt = {name: mask.copy() for name, mask in keep.items()}
    for group in comparison_groups({name: mask.shape for name, mask in keep.items()}, granularity):
        kept = [bool(keep[name][i, j]) for name, i, j in group]
        values = [float(scores[name][i, j]) for name, i, j in group]
        for comes, goes in swapped_pairs(kept, values, ratio):
            name, i, j = group[comes]
            rebuilt[name][i, j] = True
            name, i, j = group[goes]
            rebuilt[name][i, j] = False
    return rebuilt


def barber_rebuild_n_of_m(
    keep: np.ndarray, scores: np.ndarray, m: int, ratio: str, *, guard: bool
) -> np.ndarray:
    """The new keep-mask of one Linear where every group of M must go on keeping N."""
    rebuilt = keep.copy()
    for i, row in enumerate(scores.tolist()):
        newcomers = [comes for comes, _ in swapped_pairs(keep[i].tolist(), row, ratio)]
        for start in range(0, len(row), m):
            group = range(start, start + m)
            coming = sorted((j for j in newcomers if j in group), key=lambda j: (-row[j], j))
            going = sorted((j for j in group if keep[i, j]), key=lambda j: (row[j], j))
            for newcomer, evicted in zip(coming, going, strict=False):
                if row[newcomer] > row[evicted] or not guard:
                    rebuilt[i, newcomer] = True
                    rebuilt[i, evicted] = False
    return rebuilt


# --- Whole models ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class PlainBlock:
    """One block of a LLaMA or OPT layer: where its input and output are seen, and how it is run alone."""

    kind: str
    linears: dict[str, nn.Linear]
    entry: nn.Module
    exit: nn.Module
    run: Callable[..., Any]


@dataclass(frozen=True)
class PlainCall:
    """What a block was called with for one sample, and what it gave."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Tensor


def plain_blocks(model: nn.Module) -> list[list[PlainBlock]]:
    """The blocks of every decoder layer."""
    is_opt = hasattr(model.model, "decoder")
    path = "model.decoder.layers" if is_opt else "model.layers"
    found = []
    for index, layer in enumerate(model.get_submodule(path)):
        at = f"{path}.{index}"
        attention = {
            f"{at}.self_attn.{name}": child
            for name, child in layer.self_attn.named_children()
            if isinstance(child, nn.Linear)
        }
        blocks = [PlainBlock("attention", attention, layer.self_attn, layer.self_attn, layer.self_attn)]
        if is_opt:

            def run(x: Tensor, layer: Any = layer) -> Tensor:
                return layer.fc2(torch.relu(layer.fc1(x)))

            loose = {f"{at}.fc1": layer.fc1, f"{at}.fc2": layer.fc2}
            blocks.append(PlainBlock("mlp", loose, layer.fc1, layer.fc2, run))
        else:
            gated = {
                f"{at}.mlp.{name}": getattr(layer.mlp, name) for name in ("gate_proj", "up_proj", "down_proj")
            }
            blocks.append(PlainBlock("mlp", gated, layer.mlp, layer.mlp, layer.mlp))
        found.append(blocks)
    return found


def inputs_of(model: nn.Module, linears: Mapping[str, nn.Linear], ids: Tensor) -> dict[str, list[np.ndarray]]:
    """What each Linear reads, one array `[tokens, in]` a sample."""
    read: dict[str, list[np.ndarray]] = {name: [] for name in linears}
    with ExitStack() as hooks:
        for name, linear in linears.items():

            def note(_: nn.Module, args: Any, name: str = name) -> None:
                read[name].append(args[0].reshape(-1, args[0].shape[-1]).double().numpy())

            hooks.callback(linear.register_forward_pre_hook(note).remove)
        with torch.no_grad():
            for sample in ids:
                model(input_ids=sample[None], use_cache=False)
    return read


def calls_of(model: nn.Module, block: PlainBlock, ids: Tensor) -> list[PlainCall]:
    """The call of `block` for each sample, the model being as it is."""
    given: list[Any] = []
    outputs: list[Tensor] = []

    def entered(_: nn.Module, args: Any, kwargs: Any) -> None:
        given.append((args, kwargs))

    def left(_: nn.Module, args: Any, output: Any) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output)

    with ExitStack() as hooks, torch.no_grad():
        hooks.callback(block.entry.register_forward_pre_hook(entered, with_kwargs=True).remove)
        hooks.callback(block.exit.register_forward_hook(left).remove)
        for sample in ids:
            model(input_ids=sample[None], use_cache=False)
    return [PlainCall(*call, output) for call, output in zip(given, outputs, strict=True)]


def squared_gradients(
    block: PlainBlock, dense: Mapping[str, Tensor], calls: Sequence[PlainCall]
) -> dict[str, np.ndarray]:
    """mean_j g_j^2, with g_j the gradient of mean (y_j - B_dense(a_j))^2: autograd, a sample at a time.

    The block's Linears are given the dense weights and keep them.
    """
    totals = {name: np.zeros(linear.weight.shape) for name, linear in block.linears.items()}
    for name, linear in block.linears.items():
        linear.weight = nn.Parameter(dense[name].clone())
    for call in calls:
        for linear in block.linears.values():
            linear.weight.grad = None
        output = block.run(*call.args, **call.kwargs)
        output = output[0] if isinstance(output, tuple) else output
        (call.output - output).square().mean().backward()
        for name, linear in block.linears.items():
            totals[name] += linear.weight.grad.double().numpy() ** 2
    return {name: total / len(calls) for name, total in totals.items()}


Decision = Callable[[str, np.ndarray, list[np.ndarray]], tuple[np.ndarray, np.ndarray]]
"""(Linear, its weight, what it reads, one array a sample) -> (keep-mask, new weight)."""


def prune_layers(model: nn.Module, ids: Tensor, decide: Decision) -> dict[str, np.ndarray]:
    """Prunes `model` in place, layer after layer, each seeing what the pruned ones before it pass on."""
    keep = {}
    for blocks in plain_blocks(model):
        linears = {name: linear for block in blocks for name, linear in block.linears.items()}
        read = inputs_of(model, linears, ids)
        for name, linear in linears.items():
            keep[name], weight = decide(name, linear.weight.detach().double().numpy(), read[name])
            linear.weight.data = torch.from_numpy(np.where(keep[name], weight, 0)).to(linear.weight.dtype)
    return keep


def barber_prune(
    pruned: nn.Module,
    dense: Mapping[str, Tensor],
    keep: Mapping[str, np.ndarray],
    ids: Tensor,
    *,
    pattern: str = "0.5",
    granularity: str = "output",
    ratio: str = "0.01",
    score: str = "weight_gradient",
    keep_reconstruction: bool = False,
    guard: bool = True,
) -> dict[str, np.ndarray]:
    """Rebuilds the masks of a pruned model, block after block, in place; returns the new masks.

    Args:
        pruned: as the initial method left it.
        dense: Linear -> its weight before anything was pruned.
        keep: Linear -> the initial keep-mask.
    """
    rebuilt: dict[str, np.ndarray] = {}
    for index, blocks in enumerate(plain_blocks(pruned)):
        for position, block in enumerate(blocks):
            calls = calls_of(pruned, block, ids)
            alone = copy.deepcopy(pruned)
            squares = squared_gradients(plain_blocks(alone)[index][position], dense, calls)
            full, scores = {}, {}
            for name, linear in block.linears.items():
                full[name] = dense[name].double().numpy()
                if keep_reconstruction:
                    full[name] = np.where(keep[name], linear.weight.detach().double().numpy(), full[name])
                factors = {"weight": np.abs(full[name]), "gradient": np.sqrt(squares[name])}
                scores[name] = factors.get(score, factors["weight"] * factors["gradient"])
            mine = {name: keep[name] for name in block.linears}
            if split := n_of_m(pattern):
                new = {
                    name: barber_rebuild_n_of_m(mine[name], scores[name], split[1], ratio, guard=guard)
                    for name in mine
                }
            else:
                new = barber_rebuild(mine, scores, granularity, ratio)
            for name, linear in block.linears.items():
                linear.weight.data = torch.from_numpy(np.where(new[name], full[name], 0)).to(
                    linear.weight.dtype
                )
            rebuilt |= new
    return rebuilt
