"""What every method promises, checked on the pruned model itself (docs/decisions/0002).

The checks look at weights and masks only, never at how a method works, so they hold for any method. The
suite runs them after every prune; a violation fails the cell.
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
    """Everything about a model that a prune must leave as it was, but for the target weights.

    Attributes:
        weights: parameter name -> the dense values, held on the CPU.
        parameters: parameter name -> dtype, device, `requires_grad`.
        modules: module name -> mode and number of hooks.
        use_cache: of the configuration.
        tied: whether input and output embeddings are one tensor.
    """

    weights: Mapping[str, Tensor]
    parameters: Mapping[str, tuple[torch.dtype, torch.device, bool]]
    modules: Mapping[str, tuple[bool, int]]
    use_cache: object
    tied: bool

    @classmethod
    def of(cls, model: PreTrainedModel, weights: Mapping[str, Tensor] | None = None) -> ModelState:
        """The state of `model` now; `weights` spares a copy where the caller holds the dense values."""
        return cls(
            weights=dense_weights(model) if weights is None else weights,
            parameters={name: (p.dtype, p.device, p.requires_grad) for name, p in model.named_parameters()},
            modules={name: (m.training, _n_hooks(m)) for name, m in model.named_modules()},
            use_cache=getattr(model.config, "use_cache", None),
            tied=_is_tied(model),
        )


def dense_weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every parameter, on the CPU."""
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
        method: what pruned it.
        pattern: what was to be removed.
        before: the model's state before the prune.
        model: the pruned model.
        result: what the method says it did.
    """
    check_state(before, model, result)
    pruned = {name: parameter.detach() for name, parameter in model.named_parameters()}
    targets = [target for _, _, target in read_decoder(model).targets()]
    check_weights(method, targets, before.weights, pruned, result)
    check_counts(method, pattern, model, result)


def check_state(before: ModelState, model: PreTrainedModel, result: PruneResult) -> None:
    """The first part of `check_contract`: all but weights is as it was, and there is a mask for each target.

    Like the last part, it looks at no weight, so that the model may be without.
    """
    check_all_but_weights(before, ModelState.of(model, before.weights))
    targets = {target.mask_name: target for _, _, target in read_decoder(model).targets()}
    if unknown := set(result.keep) ^ targets.keys():
        raise ContractError(
            f"{min(unknown)}: masks and target modules do not match",
            1,
            "Give one mask a target of read_decoder(model).targets(), under target.mask_name.",
        )


def check_weights(
    method: PruningMethod,
    targets: Iterable[Target],
    dense: Mapping[str, Tensor],
    pruned: Mapping[str, Tensor],
    result: PruneResult,
) -> None:
    """The second part of `check_contract`, for all of a model or for some of its parameters.

    Args:
        method: what pruned them.
        targets: the targets that lie in these parameters.
        dense: parameter name -> what it was, on the CPU.
        pruned: likewise, what it is; on any device.
        result: what the method says it did.
    """
    targets = tuple(targets)
    of_targets = {target.parameter_name for target in targets}
    for name, parameter in pruned.items():
        if name not in of_targets and not same_bits(parameter.cpu(), dense[name]):
            raise ContractError(
                f"{name}: is no target module and was changed", 1, "Write into targets only (target.write)."
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
    """The last part of `check_contract`: what the masks count is what pattern, method and report say."""
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
                f"{target.name}: the report says {claimed} pruned, the mask says otherwise",
                0,
                "Set LayerReport.module to target.name and n_pruned to the number of False in the mask.",
            )


def check_all_but_weights(before: ModelState, after: ModelState) -> None:
    """Raises `ContractError` if a model's state differs in anything but the values of its weights."""
    for name, state in before.parameters.items():
        if after.parameters.get(name) != state:
            raise ContractError(
                f"{name}: dtype, device or requires_grad was {state}, is not any more",
                4,
                "Put back what you change in a finally block; methods.at_rest puts back modes.",
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
            "Write weights in place (target.write); assigning a new Parameter cuts ties.",
        )


def _check_weight(name: str, weight: Tensor, dense: Tensor, keep: Tensor, reconstructs: bool) -> None:
    """All as the model stores them."""
    if keep.shape != weight.shape:
        raise ContractError(
            f"{name}: mask {list(keep.shape)} for a weight {list(weight.shape)}",
            1,
            "A mask lies as the weight is stored; target.pack(keep) makes it from a keep [out, in].",
        )
    if bool(weight[~keep].count_nonzero()):
        raise ContractError(
            f"{name}: a pruned weight is not 0",
            1,
            "Write what the mask says: target.write(weight, keep) stores exact zeros where keep is False.",
        )
    if not bool(torch.isfinite(weight).all()):
        raise ContractError(
            f"{name}: holds NaN or infinite weights",
            5,
            "Call methods.require_finite on what is computed before it is written.",
        )
    if not reconstructs and not same_bits(weight[keep], dense[keep]):
        raise ContractError(
            f"{name}: a surviving weight was changed",
            1,
            "Write the old values where keep is True, in the model's dtype; "
            "a method that changes them on purpose says reconstructs = True.",
        )


def _check_pattern(target: Target, result: PruneResult, pattern: UniformPattern) -> None:
    if isinstance(pattern, SemiStructured):
        kept = target.unpack(result.keep[target.mask_name]).reshape(-1, pattern.m).sum(-1)
        if not bool((kept == pattern.n).all()):
            raise ContractError(
                f"{target.name}: a group of {pattern.m} does not keep {pattern.n}",
                2,
                "Choose inside every M consecutive inputs of a row: methods.prune_n_of_m(scores [out, in]).",
            )


def _check_groups(
    method: PruningMethod, target: Target, pattern: UniformPattern, result: PruneResult
) -> None:
    """Counts the pruned weights of every comparison group that fits into one target."""
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
            f"{target.name}: {wrong} of {lost.numel()} comparison groups lost another number than due",
            2,
            "Remove pattern.for_module(name).n_pruned(n) of each group of n "
            "(methods.prune_lowest), and state the group in comparison_group.",
        )


def _group_counts(marked: Tensor, group: tuple[int, int]) -> Tensor:
    """How many are True in each tile of `group` rows x columns; int64 `[row tiles, column tiles]`."""
    tiles = [-(-size // step) for size, step in zip(marked.shape, group, strict=True)]
    rows, columns = (n * step - size for n, step, size in zip(tiles, group, marked.shape, strict=True))
    padded = nn.functional.pad(marked, (0, columns, 0, rows))
    return padded.reshape(tiles[0], group[0], tiles[1], group[1]).sum((1, 3))


def _check_block(layer: str, block: Block, result: PruneResult, initial: PruneResult) -> None:
    names = [target.mask_name for target in block.targets.values()]
    before, after = (sum(r.keep[name].n_kept for name in names) for r in (initial, result))
    if before != after:
        raise ContractError(
            f"{layer} ({block.kind}): the rebuild changed its survivors from {before} to {after}",
            2,
            "A rebuild swaps: as many weights come back in a block as go.",
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
