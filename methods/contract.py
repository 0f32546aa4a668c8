"""The promises of every method, checked on the pruned model (docs/decisions/0002).

The checks read only weights and masks, not how a method works, so they apply to any method. The suite runs
them after every prune; a violation fails the cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from methods.base import PruneResult, PruningMethod
from methods.errors import ContractError
from methods.masks.bits import same_bits
from methods.masks.pattern import SemiStructured, SparsityPattern, UniformPattern
from methods.structure.decoder import Block, read_decoder
from methods.structure.target import Target

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class ModelState:
    """The state of a model that a prune must not change, except for the target weights.

    Attributes:
        weights: parameter name -> the dense values, on the CPU.
        parameters: parameter name -> dtype, device, `requires_grad`.
        modules: module name -> training mode and number of hooks.
        use_cache: `use_cache` of the configuration.
        tied: whether input and output embeddings are one tensor.
    """

    weights: Mapping[str, Tensor]
    parameters: Mapping[str, tuple[torch.dtype, torch.device, bool]]
    modules: Mapping[str, tuple[bool, int]]
    use_cache: object
    tied: bool

    @classmethod
    def of(cls, model: PreTrainedModel, weights: Mapping[str, Tensor] | None = None) -> ModelState:
        """Reads the current state of `model`; pass the dense `weights` if you have them, to avoid a copy."""
        return cls(
            weights=dense_weights(model) if weights is None else weights,
            parameters={name: (p.dtype, p.device, p.requires_grad) for name, p in model.named_parameters()},
            modules={name: (m.training, _n_hooks(m)) for name, m in model.named_modules()},
            use_cache=getattr(model.config, "use_cache", None),
            tied=_is_tied(model),
        )


def dense_weights(model: nn.Module) -> dict[str, Tensor]:
    """Returns a copy of every parameter, on the CPU."""
    return {name: p.detach().to("cpu", copy=True) for name, p in model.named_parameters()}


def check_contract(
    method: PruningMethod,
    pattern: SparsityPattern,
    before: ModelState,
    model: PreTrainedModel,
    result: PruneResult,
) -> None:
    """Raises `ContractError` if `model`, pruned by `method`, breaks a promise.

    Args:
        method: the method that pruned the model.
        pattern: the pattern it was pruned to.
        before: the model's state before the prune.
        model: the pruned model.
        result: the result that the method returned.
    """
    check_state(before, model, result)
    pruned = {name: parameter.detach() for name, parameter in model.named_parameters()}
    targets = [target for _, _, target in read_decoder(model).targets()]
    check_weights(method, targets, before.weights, pruned, result)
    check_counts(method, pattern, model, result)


def check_state(before: ModelState, model: PreTrainedModel, result: PruneResult) -> None:
    """First part of `check_contract`: nothing but weights has changed, and every target has a mask.

    Like the last part, it reads no weights, so that it works for a model whose weights are not loaded.
    """
    check_all_but_weights(before, ModelState.of(model, before.weights))
    targets = {target.mask_name: target for _, _, target in read_decoder(model).targets()}
    if unknown := set(result.keep) ^ targets.keys():
        raise ContractError(
            f"{min(unknown)}: masks and target modules do not match",
            1,
            "Return one mask per target of read_decoder(model).targets(), under target.mask_name.",
        )


def check_weights(
    method: PruningMethod,
    targets: Iterable[Target],
    dense: Mapping[str, Tensor],
    pruned: Mapping[str, Tensor],
    result: PruneResult,
) -> None:
    """Second part of `check_contract`, for a whole model or for some of its parameters.

    Args:
        method: the method that pruned the parameters.
        targets: the targets that these parameters contain.
        dense: parameter name -> value before the prune, on the CPU.
        pruned: parameter name -> value after the prune, on any device.
        result: the result that the method returned.
    """
    targets = tuple(targets)
    of_targets = {target.parameter_name for target in targets}
    for name, parameter in pruned.items():
        if name not in of_targets and not same_bits(parameter.cpu(), dense[name]):
            raise ContractError(
                f"{name}: is not a target module and was changed",
                1,
                "Write into targets only (target.write).",
            )
    for target in targets:
        before, after = dense[target.parameter_name], pruned[target.parameter_name]
        if target.expert is not None:
            before, after = before[target.expert], after[target.expert]
        keep = result.keep[target.mask_name].unpack()
        _check_weight(target.mask_name, after.cpu(), before, keep, method.reconstructs)


def check_counts(
    method: PruningMethod, pattern: SparsityPattern, model: PreTrainedModel, result: PruneResult
) -> None:
    """Last part of `check_contract`: the counts in the masks agree with pattern, method and report."""
    decoder = read_decoder(model)
    for _, _, target in decoder.targets():
        _check_pattern(target, result, pattern.for_module(target.name))
        _check_groups(method, target, pattern.for_module(target.name), result)
    if result.initial is not None:
        initial_method = getattr(method, "initial_method", None) or getattr(method, "mask_score", None)
        if initial_method is not None:
            for _, _, target in decoder.targets():
                _check_groups(initial_method, target, pattern.for_module(target.name), result.initial)
        for layer in decoder.layers:
            for block in layer.blocks:
                _check_block(layer.name, block, result, result.initial)
    reported = {report.module: report.n_pruned for report in result.layers}
    for _, _, target in decoder.targets():
        mask, claimed = result.keep[target.mask_name], reported.get(target.name)
        if claimed != mask.numel - mask.n_kept:
            raise ContractError(
                f"{target.name}: the report says {claimed} pruned, the mask differs",
                0,
                "Set LayerReport.module to target.name and n_pruned to the number of False in the mask.",
            )


def check_all_but_weights(before: ModelState, after: ModelState) -> None:
    """Raises `ContractError` if a model's state differs in anything but the values of its weights."""
    for name, state in before.parameters.items():
        if after.parameters.get(name) != state:
            raise ContractError(
                f"{name}: dtype, device or requires_grad was {state} and has changed",
                4,
                "Restore what you change in a finally block; methods.at_rest restores modes.",
            )
    for name, mode in before.modules.items():
        if after.modules.get(name) != mode:
            raise ContractError(
                f"module {name or '(model)'}: training mode or hooks were left changed",
                4,
                "Remove hooks in a finally block, and run inside methods.at_rest(model).",
            )
    if after.use_cache != before.use_cache:
        raise ContractError(
            f"config.use_cache was {before.use_cache}, is {after.use_cache}",
            4,
            "Pass use_cache=False to the call; leave the configuration alone.",
        )
    if after.tied != before.tied:
        raise ContractError(
            "the embeddings were tied before and are not any more, or the other way round",
            4,
            "Write weights in place (target.write); assigning a new Parameter unties them.",
        )


def _check_weight(name: str, weight: Tensor, dense: Tensor, keep: Tensor, reconstructs: bool) -> None:
    """Checks one weight against its mask; all tensors in the layout in which the model stores them."""
    if keep.shape != weight.shape:
        raise ContractError(
            f"{name}: mask {list(keep.shape)} for a weight {list(weight.shape)}",
            1,
            "A mask has the layout of the stored weight; target.pack(keep) makes it from a keep [out, in].",
        )
    if bool(weight[~keep].count_nonzero()):
        raise ContractError(
            f"{name}: a pruned weight is not 0",
            1,
            "Write weights by target.write(weight, keep), which stores exact zeros where keep is False.",
        )
    if not bool(torch.isfinite(weight).all()):
        raise ContractError(
            f"{name}: holds NaN or infinite weights",
            5,
            "Call methods.require_finite on computed weights before they are written.",
        )
    if not reconstructs and not same_bits(weight[keep], dense[keep]):
        raise ContractError(
            f"{name}: a surviving weight was changed",
            1,
            "Write the old values where keep is True, in the model's dtype; "
            "a method that changes them on purpose sets reconstructs = True.",
        )


def _check_pattern(target: Target, result: PruneResult, pattern: UniformPattern) -> None:
    if isinstance(pattern, SemiStructured):
        kept = target.unpack(result.keep[target.mask_name]).reshape(-1, pattern.m).sum(-1)
        if not bool((kept == pattern.n).all()):
            raise ContractError(
                f"{target.name}: a group of {pattern.m} does not keep {pattern.n}",
                2,
                "Choose N of every M consecutive inputs of a row: methods.prune_n_of_m(scores [out, in]).",
            )


def _check_groups(
    method: PruningMethod, target: Target, pattern: UniformPattern, result: PruneResult
) -> None:
    """Checks the number of pruned weights of every comparison group that fits into one target."""
    group = method.comparison_group(target.shape, pattern)
    if group is None:
        return
    lost = _group_counts(~target.unpack(result.keep[target.mask_name]), group)
    if result.initial is None:
        sizes = _group_counts(torch.ones(target.shape, dtype=torch.bool), group)
        due = {int(size): pattern.n_pruned(int(size)) for size in torch.unique(sizes)}
        expected = sum((sizes == size) * k for size, k in due.items())
    else:
        expected = _group_counts(~target.unpack(result.initial.keep[target.mask_name]), group)
    if not torch.equal(lost, torch.as_tensor(expected)):
        wrong = int((lost != expected).sum())
        raise ContractError(
            f"{target.name}: {wrong} of {lost.numel()} comparison groups lost a wrong number of weights",
            2,
            "Remove pattern.for_module(name).n_pruned(n) of each group of n "
            "(methods.prune_lowest), and state the group in comparison_group.",
        )


def _group_counts(marked: Tensor, group: tuple[int, int]) -> Tensor:
    """Counts the True values in each tile of `group` rows x columns; int64 `[row tiles, column tiles]`."""
    tiles = [-(-size // step) for size, step in zip(marked.shape, group, strict=True)]
    rows, columns = (n * step - size for n, step, size in zip(tiles, group, marked.shape, strict=True))
    padded = nn.functional.pad(marked, (0, columns, 0, rows))
    return padded.reshape(tiles[0], group[0], tiles[1], group[1]).sum((1, 3))


def _check_block(layer: str, block: Block, result: PruneResult, initial: PruneResult) -> None:
    names = [target.mask_name for target in block.targets.values()]
    before, after = (sum(r.keep[name].n_kept for name in names) for r in (initial, result))
    if before != after:
        raise ContractError(
            f"{layer} ({block.kind}): the rebuild changed the number of survivors from {before} to {after}",
            2,
            "A rebuild must swap pairs: in a block as many weights come back as are removed.",
        )


def _n_hooks(module: nn.Module) -> int:
    return len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)


def _is_tied(model: PreTrainedModel) -> bool:
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    return head is not None and head.weight is embedding.weight


__all__ = [
    "ModelState",
    "check_all_but_weights",
    "check_contract",
    "check_counts",
    "check_state",
    "check_weights",
    "dense_weights",
]
