"""Checks the promises on a pruned model, using the description of its family.

`methods.contract` checks masks as `methods.structure.decoder` reads the model. These checks use an
independent description of the family and look at zeros in the weights. So they detect a matrix that was
missed, or pruned along the wrong dimension, even if the masks are consistent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from methods.base import LayerReport, PruneResult, PruningMethod
from methods.conformance.family import Family, target_name
from methods.conformance.outcome import BrokenPromiseError
from methods.contract import ModelState, check_all_but_weights
from methods.errors import ContractError
from methods.masks.bits import same_bits
from methods.masks.keep_mask import KeepMask
from methods.masks.pattern import SemiStructured, SparsityPattern, UniformPattern

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SPARSITY_TOLERANCE = 0.02
"""Allowed difference between the whole model's sparsity and the pattern's, if groups span several weights."""


_CALL_ON_LAYER = (
    "Call on_layer(report) with each report of the result as soon as it is final: progress bars need it."
)


@dataclass(frozen=True)
class Before:
    """The state of a model before its prune, in more detail than `ModelState`.

    Attributes:
        state: the state that the contract compares.
        parameters: names of all parameters.
        buffers: name -> copy of the buffer.
        own_forwards: names of modules whose forward is replaced.
        config: the configuration as a dictionary.
        torch_state: gradient mode, default dtype and other global settings of torch.
    """

    state: ModelState
    parameters: frozenset[str]
    buffers: Mapping[str, Tensor]
    own_forwards: frozenset[str]
    config: Mapping[str, Any]
    torch_state: tuple[object, ...]

    @classmethod
    def of(cls, model: PreTrainedModel) -> Before:
        """Reads the current state of `model`."""
        return cls(
            state=ModelState.of(model),
            parameters=frozenset(name for name, _ in model.named_parameters()),
            buffers={name: buffer.clone() for name, buffer in model.named_buffers()},
            own_forwards=_own_forwards(model),
            config=model.config.to_dict(),
            torch_state=_torch_state(),
        )

    def restore(self, model: PreTrainedModel) -> None:
        """Restores the dense weights of `model`."""
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(self.state.weights[name])


def check_result(result: object) -> PruneResult:
    """Returns `result` if it has the types that the interface requires; raises otherwise."""
    if not isinstance(result, PruneResult):
        raise BrokenPromiseError(
            0,
            f"prune() returned {type(result).__name__}",
            "Return a methods.PruneResult: masks, one LayerReport per target, and seconds by phase.",
        )
    for name, mask in result.keep.items():
        if not isinstance(mask, KeepMask):
            raise BrokenPromiseError(
                0,
                f"{name}: its mask is a {type(mask).__name__}",
                "Pack each bool keep-mask (True = survives): target.pack(keep) of its methods.Target.",
            )
    return result


def check_reported(told: list[LayerReport], result: PruneResult) -> None:
    """Raises if the reports that `on_layer` received are not those of the result."""
    if not told:
        raise nothing_reported()
    if {report.module: report for report in told} != {report.module: report for report in result.layers}:
        raise BrokenPromiseError(
            0,
            f"on_layer received {len(told)} reports that differ from the {len(result.layers)} of the result",
            _CALL_ON_LAYER,
        )


def nothing_reported() -> BrokenPromiseError:
    """Returns the error for a method that never called `on_layer`."""
    return BrokenPromiseError(0, "on_layer was never called", _CALL_ON_LAYER)


def check_left_as_it_was(before: Before, model: PreTrainedModel) -> None:
    """Checks promise 4 beyond `ModelState`: all of the model and of torch except the values of weights."""
    now = dict(model.named_parameters())
    if changed := sorted(now.keys() ^ before.parameters):
        advice = "Do not change the names of parameters"
        if any(name.endswith("_orig") for name in changed):
            advice += "; after torch.nn.utils.prune call torch.nn.utils.prune.remove(module, 'weight')"
        raise BrokenPromiseError(4, f"{changed[0]}: a parameter was added or removed", f"{advice}.")
    for name, parameter in now.items():
        if parameter.grad is not None:
            raise BrokenPromiseError(
                4, f"{name}: holds a gradient", "Use torch.autograd.grad, or set .grad to None when done."
            )
    buffers = dict(model.named_buffers())
    for name in sorted(buffers.keys() | before.buffers.keys()):
        ours, theirs = before.buffers.get(name), buffers.get(name)
        if ours is None or theirs is None or not same_bits(ours, theirs):
            raise BrokenPromiseError(
                4,
                f"{name}: a buffer was added, removed or changed",
                "Store masks in the result, not in the model.",
            )
    if left := sorted(_own_forwards(model) ^ before.own_forwards):
        raise BrokenPromiseError(
            4,
            f"{left[0]}: its forward is still replaced",
            "Restore it in a finally block, or use a context manager.",
        )
    if model.config.to_dict() != before.config:
        keys = [key for key, value in model.config.to_dict().items() if before.config.get(key) != value]
        raise BrokenPromiseError(
            4, f"config.{(keys or ['?'])[0]} was changed", "Restore it in a finally block."
        )
    if _torch_state() != before.torch_state:
        raise BrokenPromiseError(
            4,
            f"torch's gradient mode, default dtype, threads or determinism changed from {before.torch_state} "
            f"to {_torch_state()}",
            "Change them in a with block, or not at all.",
        )


def check_state(before: Before, model: PreTrainedModel) -> None:
    """Checks promise 4 after a prune that did not finish, like the contract does after a finished one."""
    try:
        check_all_but_weights(before.state, ModelState.of(model, before.state.weights))
    except ContractError as error:
        advice = "Remove hooks and restore modes by with blocks, which also work if an error is raised."
        raise BrokenPromiseError(error.promise, str(error), advice) from error


def check_untouched(before: Before, model: PreTrainedModel, promise: int, when: str, advice: str) -> None:
    """Raises if any weight has changed."""
    for name, parameter in model.named_parameters():
        if not same_bits(parameter.detach().cpu(), before.state.weights[name]):
            raise BrokenPromiseError(promise, f"{name}: was changed {when}", advice)


def check_weights(
    method: PruningMethod,
    family: Family,
    pattern: SparsityPattern,
    before: Before,
    model: PreTrainedModel,
    result: PruneResult,
) -> None:
    """Checks promises 1 and 2 by the zeros in the weights themselves."""
    # On the CPU, like the dense values and the masks; the model may be on an accelerator.
    parameters = {name: parameter.detach().cpu() for name, parameter in model.named_parameters()}
    for name, parameter in parameters.items():
        if family.weights_of(name) is None and not same_bits(parameter, before.state.weights[name]):
            raise BrokenPromiseError(
                1,
                f"{name}: is not to be pruned and was changed",
                "Prune only the targets that methods.read_decoder(model).targets() returns.",
            )
    matrices = family.matrices(parameters)
    if missed := [name for name in matrices if name not in result.keep]:
        raise BrokenPromiseError(
            1,
            f"{missed[0]}: has no mask ({len(missed)} of {len(matrices)} weights have none)",
            "Return one for every target, under target.mask_name: "
            "read_decoder(model).targets() lists them all, experts one by one.",
        )
    if unknown := [name for name in result.keep if name not in matrices]:
        raise BrokenPromiseError(
            1, f"{unknown[0]}: has a mask but is not a target", "Name masks by target.mask_name."
        )
    counted = [
        _check_zeros(method, name, pattern.for_module(target_name(name)), matrix, result)
        for name, matrix in matrices.items()
    ]
    if not all(counted):
        _check_whole_model(pattern, matrices, result)


def _check_zeros(
    method: PruningMethod, name: str, pattern: UniformPattern, matrix: Tensor, result: PruneResult
) -> bool:
    """Raises if any comparison group of one matrix `[out, in]` has fewer zeros than required.

    Returns:
        Whether the zeros could be counted; False if groups span several weights. A rebuilt mask counts as
        checked, because `methods.contract` compares it with its initial mask.
    """
    shape = (matrix.shape[0], matrix.shape[1])
    group = method.comparison_group(shape, pattern)
    if group is not None and not _is_group(group):
        raise BrokenPromiseError(
            0,
            f"comparison_group({shape}, {pattern}) returned {group!r}",
            "Return (rows, columns), two integers of at least 1, or None.",
        )
    if isinstance(pattern, SemiStructured):
        _check_tiles(name, matrix, (1, pattern.m), pattern)
    if group is not None and result.initial is None:
        _check_tiles(name, matrix, group, pattern)
    return group is not None or result.initial is not None


def _check_whole_model(pattern: SparsityPattern, matrices: Mapping[str, Tensor], result: PruneResult) -> None:
    """Raises if the sparsity of the whole model is not about the requested one; for groups of any shape."""
    sizes = {name: matrix.numel() for name, matrix in matrices.items()}
    due = sum(size * pattern.for_module(target_name(name)).target for name, size in sizes.items())
    wanted = due / sum(sizes.values())
    if abs(result.sparsity - wanted) > SPARSITY_TOLERANCE:
        raise BrokenPromiseError(
            2,
            f"{result.sparsity:.3f} of all weights were removed, {wanted:.3f} were asked for",
            "Take the count from pattern.for_module(name).n_pruned(group size).",
        )


def _check_tiles(name: str, matrix: Tensor, group: tuple[int, int], pattern: UniformPattern) -> None:
    n_zeros = _tile_sums(matrix == 0, group)
    sizes = _tile_sums(torch.ones_like(matrix, dtype=torch.bool), group)
    for size in torch.unique(sizes).tolist():
        due = pattern.n_pruned(size)
        fewest = int(n_zeros[sizes == size].min())
        if fewest < due:
            rows, columns = (min(step, length) for step, length in zip(group, matrix.shape, strict=True))
            raise BrokenPromiseError(
                2,
                f"{name}: of {rows} outputs x {columns} inputs {fewest} weights are 0, {due} should be",
                f"As [out, in] the weight is {list(matrix.shape)}, and groups refer to this layout. If a "
                "model stores it transposed, target.weight and target.pack transpose it; take the count "
                "from pattern.for_module(name).n_pruned(group size).",
            )


def _tile_sums(marked: Tensor, group: tuple[int, int]) -> Tensor:
    """Counts the True values in each tile; the last tiles of rows and columns may be smaller."""
    rows, columns = group
    by_column = torch.stack([strip.sum(1) for strip in torch.split(marked, columns, dim=1)], dim=1)
    return torch.stack([strip.sum(0) for strip in torch.split(by_column, rows)])


def _is_group(group: object) -> bool:
    return (
        isinstance(group, tuple)
        and len(group) == 2
        and all(isinstance(size, int) and size >= 1 for size in group)
    )


def _own_forwards(model: nn.Module) -> frozenset[str]:
    return frozenset(name for name, module in model.named_modules() if "forward" in vars(module))


def _torch_state() -> tuple[object, ...]:
    return (
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
    )


__all__ = [
    "SPARSITY_TOLERANCE",
    "Before",
    "check_left_as_it_was",
    "check_reported",
    "check_result",
    "check_state",
    "check_untouched",
    "check_weights",
    "nothing_reported",
]
