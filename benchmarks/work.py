"""Counts what a method has to do on a model: forwards, products, bytes. Nothing is measured here.

FLOPs count a multiplication and an addition as two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from methods.engine.layerwise import LayerwiseMethod, Score
from methods.engine.statistics import GramMatrix
from methods.engine.steps import BlockRefinement, Step
from methods.errors import InputError
from methods.registry import build, methods
from methods.scores.alps import CHECKED_EVERY

BARBER_FORWARDS = 3
"""Forwards in LLM-Barber's own pass: one each through the sparse block, the dense block and the rebuilt
layer."""

BACKWARD_FORWARDS = 2
"""Forwards that a backward counts as: one for the gradients of activations, one for those of weights."""

FIRST_PASS_FORWARDS = 2
"""Forwards in a pass that prunes layer by layer: one to gather statistics, one through the pruned layer."""


@dataclass(frozen=True)
class Matrix:
    """One target matrix.

    Attributes:
        outputs: number of rows, as a Linear stores it.
        inputs: number of columns.
        leads: whether it is the first matrix that reads its input; it alone computes the statistic of that
            input.
        from_block_input: whether it reads the input of its block, so that no gradient of its input is needed.
    """

    outputs: int
    inputs: int
    leads: bool
    from_block_input: bool

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.outputs * self.inputs


@dataclass(frozen=True)
class LayerShape:
    """One decoder layer.

    Attributes:
        matrices: its targets, in the order of the model.
        attention_width: heads x head size, the length of the dot product of each pair of tokens.
    """

    matrices: tuple[Matrix, ...]
    attention_width: int

    @property
    def n_weights(self) -> int:
        """Number of weights of its targets."""
        return sum(matrix.size for matrix in self.matrices)


@dataclass(frozen=True)
class Workload:
    """The sizes of a decoder and of a calibration set.

    Attributes:
        layers: the decoder layers.
        n_samples: number of sequences.
        seqlen: tokens per sequence.
        weight_bytes: size of one weight in bytes.
    """

    layers: tuple[LayerShape, ...]
    n_samples: int
    seqlen: int
    weight_bytes: int

    @property
    def n_tokens(self) -> int:
        """Number of calibration tokens."""
        return self.n_samples * self.seqlen

    @property
    def n_weights(self) -> int:
        """Number of weights of all targets."""
        return sum(layer.n_weights for layer in self.layers)


@dataclass(frozen=True)
class Products:
    """Matrix products in FLOPs, grouped by the precision that they can use.

    Attributes:
        activation_gradients: from a block's output back to its targets, in the model's dtype.
        weight_gradients: the gradient of each weight for each sample, accumulated in fp32.
        gram: X^T X, accumulated in fp32.
        solve: factorizations and column updates, in fp32.
    """

    activation_gradients: float = 0
    weight_gradients: float = 0
    gram: float = 0
    solve: float = 0

    def __add__(self, other: Products) -> Products:
        return Products(
            self.activation_gradients + other.activation_gradients,
            self.weight_gradients + other.weight_gradients,
            self.gram + other.gram,
            self.solve + other.solve,
        )


@dataclass(frozen=True)
class Count:
    """Forwards, and the products that belong to none of them.

    Attributes:
        forwards: passes of the whole decoder over all calibration tokens.
        products: products besides the forwards.
    """

    forwards: int = 0
    products: Products = Products()

    def __add__(self, other: Count) -> Count:
        return Count(self.forwards + other.forwards, self.products + other.products)


@dataclass(frozen=True)
class Traffic:
    """A pass over all target weights that is not part of any product.

    Attributes:
        name: purpose of the pass.
        bytes_per_weight: bytes read and written per weight.
        why: explains which reads and writes these are.
    """

    name: str
    bytes_per_weight: float
    why: str


@dataclass(frozen=True)
class Work:
    """All the work of a method, counted in two ways.

    Attributes:
        usual: counts a backward as two forwards, and a Gram matrix in full.
        strict: counts only what cannot be avoided: the forwards that really run, each product of a backward
            at its own rate, one triangle of a Gram matrix.
        traffic: passes over the weights, the same for both counts.
    """

    usual: Count
    strict: Count
    traffic: tuple[Traffic, ...]


def work_of(method: str, settings: Mapping[str, Any], load: Workload) -> Work:
    """Counts the work of `method` on `load`. It does not depend on the pattern: N:M has the same floors.

    Args:
        method: its name, or `recipe`.
        settings: its settings.
        load: the decoder and the calibration set.

    Raises:
        InputError: the work of the method, or of one of its steps, is unknown.
    """
    built: Any = build(method, settings) if method in methods.names() else None
    if method in ("dsnot", "llm-barber"):
        initial = work_of(built.initial, built.initial_settings, load)
        own = _refinement(load) if method == "dsnot" else _rebuild(load)
        return Work(initial.usual + own.usual, initial.strict + own.strict, (*initial.traffic, *own.traffic))
    if not isinstance(built, LayerwiseMethod):
        raise InputError(f"no floor is known for method {method!r}; benchmarks/work.py has those that are")
    return _walk(built.as_steps(), load)


def _walk(steps: Sequence[Step], load: Workload) -> Work:
    """Counts one pass through the layers: a forward for statistics, all solves, and a second forward."""
    usual = strict = Count(any(step.statistics for step in steps) + any(step.reads_inputs for step in steps))
    if any(GramMatrix in step.statistics for step in steps):
        usual += Count(products=Products(gram=gram_flops(load)))
        strict += Count(products=Products(gram=gram_triangle_flops(load)))
    traffic = pruning_traffic(load.weight_bytes)
    for step in steps:
        if step.name not in STEPS:
            raise InputError(
                f"no floor is known for step {step.name!r}; benchmarks/work.py has those that are"
            )
        solve = Count(products=Products(solve=STEPS[step.name](step, load)))
        usual, strict = usual + solve, strict + solve
        if step.reads_regional_gradients:
            usual += Count(1 + BACKWARD_FORWARDS)
            strict += Count(1, _backward(load))
        if isinstance(step, BlockRefinement):
            # Forwards through the sparse and the dense block; the third one is already counted as the forward
            # on.
            usual += Count(BARBER_FORWARDS - 1 + BACKWARD_FORWARDS)
            strict += Count(BARBER_FORWARDS - 1, _backward(load))
            traffic = (saving_dense_traffic(load.weight_bytes), *traffic)
        if not isinstance(step, Score):
            why = "weight and mask are read, the mask or the weight is written"
            traffic = (*traffic, Traffic(step.name, 2 * load.weight_bytes + 1, why))
    return Work(usual, strict, traffic)


def _refinement(load: Workload) -> Work:
    """Counts DSnoT's own pass: it gathers and moves on as Wanda does, from saved dense weights."""
    moving = Count(FIRST_PASS_FORWARDS)
    traffic = (saving_dense_traffic(load.weight_bytes), *pruning_traffic(load.weight_bytes))
    return Work(moving, moving, _named("refine", traffic))


def _rebuild(load: Workload) -> Work:
    """Counts LLM-Barber's own pass.

    The squares of a sample's gradients do not count as traffic: a kernel can add them up while it computes
    the gradients.
    """
    traffic = (saving_dense_traffic(load.weight_bytes), *pruning_traffic(load.weight_bytes))
    return Work(
        Count(BARBER_FORWARDS + BACKWARD_FORWARDS),
        Count(BARBER_FORWARDS, _backward(load)),
        _named("rebuild", traffic),
    )


def _backward(load: Workload) -> Products:
    """Counts the products from the output of every block to the gradients of its weights."""
    return Products(
        activation_gradients=activation_gradient_flops(load), weight_gradients=weight_gradient_flops(load)
    )


def linear_flops(load: Workload) -> float:
    """Every target times every token: 2 * tokens * out * in."""
    return 2.0 * load.n_tokens * load.n_weights


def attention_flops(load: Workload) -> float:
    """Attention scores and their product with the values, for the half that a causal mask leaves.

    A token attends to (seqlen + 1) / 2 tokens on average, itself included; each pair costs 2 * width in
    either product. Attention windows shorter than the sequence are ignored.
    """
    width = sum(layer.attention_width for layer in load.layers)
    return 2 * 2.0 * load.n_tokens * (load.seqlen + 1) / 2 * width


def forward_flops(load: Workload) -> float:
    """The products of one forward of the decoder over all tokens."""
    return linear_flops(load) + attention_flops(load)


def activation_gradient_flops(load: Workload) -> float:
    """Products from each block's output back to the output of every target.

    A matrix that reads its block's input passes no gradient on. The backward of attention has four products,
    its forward two.
    """
    passing = sum(m.size for layer in load.layers for m in layer.matrices if not m.from_block_input)
    return 2.0 * load.n_tokens * passing + 2 * attention_flops(load)


def weight_gradient_flops(load: Workload) -> float:
    """dY^T X for every sample and target: as many FLOPs as the forward's products with the weights."""
    return linear_flops(load)


def gram_flops(load: Workload) -> float:
    """X^T X of each distinct input, all elements: 2 * tokens * in^2."""
    return sum(2.0 * load.n_tokens * m.inputs**2 for m in _leads(load))


def gram_triangle_flops(load: Workload) -> float:
    """X^T X of each distinct input with each pair multiplied once, since the matrix is symmetric."""
    return sum(float(load.n_tokens) * m.inputs * (m.inputs + 1) for m in _leads(load))


def solve_flops(load: Workload) -> float:
    """One factorization per distinct input, and for each target the updates column by column."""
    targets = (matrix for layer in load.layers for matrix in layer.matrices)
    return sum(factor_flops(m.inputs) for m in _leads(load)) + sum(column_flops(m) for m in targets)


def factor_flops(n: int) -> float:
    """FLOPs to factor H `[n, n]` in reverse order: its Cholesky factor n^3 / 3, and that triangle's inverse
    n^3 / 3.
    """
    return 2 / 3 * n**3


def column_flops(matrix: Matrix) -> float:
    """Each column's error times its row of the factor, from the diagonal on: out * in^2 in total."""
    return float(matrix.outputs) * matrix.inputs**2


def inverse_flops(n: int) -> float:
    """FLOPs to invert a symmetric H `[n, n]`: its factor n^3 / 3, and the inverse from it 2 n^3 / 3."""
    return float(n) ** 3


def eigen_flops(n: int) -> float:
    """FLOPs for all eigenvectors of a symmetric H `[n, n]`: to tridiagonal form 4 n^3 / 3, and back 2 n^3."""
    return 10 / 3 * n**3


def product_flops(load: Workload) -> float:
    """Every target times a matrix `[in, in]` of its inputs: 2 * out * in^2."""
    return sum(2.0 * m.outputs * m.inputs**2 for layer in load.layers for m in layer.matrices)


def _of_leads(flops: Callable[[int], float], load: Workload) -> float:
    return sum(flops(matrix.inputs) for matrix in _leads(load))


def _nothing(_: Any, load: Workload) -> float:
    return 0.0


def _columns(_: Any, load: Workload) -> float:
    return solve_flops(load)


def _swaps(_: Any, load: Workload) -> float:
    """G r of every row. The number of swaps that follow depends on the weights and is not counted."""
    return product_flops(load)


def _refit(step: Any, load: Workload) -> float:
    """The right-hand side, the first residual, and one product per step."""
    return (2 + step.steps) * product_flops(load)


def _admm(step: Any, load: Workload) -> float:
    """One inverse per distinct input, the right-hand side, and one product per iteration."""
    return _of_leads(inverse_flops, load) + (1 + step.iterations) * product_flops(load)


def _alps(step: Any, load: Workload) -> float:
    """Eigenvectors and one inverse per distinct input, the fewest iterations that it can make, and the refit.

    The actual number of iterations, and of inverses with them, depends on the weights.
    """
    own = _of_leads(eigen_flops, load) + _of_leads(lambda n: 2.0 * n**3, load)
    return own + (1 + CHECKED_EVERY + 1 + step.refit_steps) * product_flops(load)


STEPS: Mapping[str, Callable[[Any, Workload], float]] = {
    "magnitude": _nothing,
    "wanda": _nothing,
    "wanda-rgs": _nothing,
    "ria": _nothing,
    "dsnot": _nothing,
    "llm-barber": _nothing,
    "sparsegpt": _columns,
    "sparsegpt-update": _columns,
    "swaps": _swaps,
    "refit": _refit,
    "admm": _admm,
    "admm-update": _admm,
    "alps": _alps,
}
"""Maps a step to the FLOPs of its solve, besides the forwards and Gram matrices that it shares with others.
"""


def pruning_traffic(weight_bytes: int) -> tuple[Traffic, ...]:
    """Bytes per weight to score, select and write; each step reads and writes once."""
    return (
        Traffic("score", weight_bytes + 4, "the weight is read, its score is written in fp32"),
        Traffic("select", 4 + 1, "the score is read once, a byte of mask is written"),
        Traffic("write", 2 * weight_bytes + 1, "weight and mask are read, the weight is written"),
        Traffic("pack", 1 + 1 / 8, "the mask is read, a bit of it is written"),
    )


def saving_dense_traffic(weight_bytes: int) -> Traffic:
    """Copying the dense weights aside while an initial method prunes the model."""
    return Traffic("dense", 2 * weight_bytes, "the dense weight is read and put aside")


def _leads(load: Workload) -> list[Matrix]:
    """Returns one matrix per distinct input."""
    return [matrix for layer in load.layers for matrix in layer.matrices if matrix.leads]


def _named(prefix: str, traffic: tuple[Traffic, ...]) -> tuple[Traffic, ...]:
    return tuple(replace(part, name=f"{prefix} {part.name}") for part in traffic)


def traffic_bytes(work: Work, load: Workload) -> float:
    """Returns the bytes read and written by all passes over the weights."""
    return load.n_weights * sum(part.bytes_per_weight for part in work.traffic)


__all__ = [
    "Count",
    "LayerShape",
    "Matrix",
    "Products",
    "Traffic",
    "Work",
    "Workload",
    "activation_gradient_flops",
    "attention_flops",
    "column_flops",
    "eigen_flops",
    "factor_flops",
    "forward_flops",
    "gram_flops",
    "gram_triangle_flops",
    "inverse_flops",
    "linear_flops",
    "product_flops",
    "pruning_traffic",
    "solve_flops",
    "traffic_bytes",
    "weight_gradient_flops",
    "work_of",
]
