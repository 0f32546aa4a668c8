"""Reads the structure of a causal language model: decoder layers, their blocks, the target matrices.

Only this file knows how model families differ. It finds parts by structure: the decoder layers are the module
list with the most weights, the attention block is the child whose name contains "attn" or "attention", and
the MLP block is everything else that has matrices. Routers of experts are never targets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D

from methods.errors import StructureError
from methods.masks.pattern import SemiStructured, SparsityPattern
from methods.structure.experts import stacked_matrices
from methods.structure.target import Target

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BlockKind = Literal["attention", "mlp"]


@dataclass(frozen=True)
class Block:
    """The attention or the MLP of one decoder layer.

    Attributes:
        kind: `attention` or `mlp`.
        chain: the modules of the block, called one after another. One module in most families; OPT has no MLP
            module, so the chain is fc1, activation, fc2.
        targets: report name -> matrix to prune, in the order of the model.
    """

    kind: BlockKind
    chain: tuple[nn.Module, ...]
    targets: Mapping[str, Target]

    @property
    def entry(self) -> nn.Module:
        """The module whose input is the block's input."""
        return self.chain[0]

    @property
    def exit(self) -> nn.Module:
        """The module whose output is the block's output."""
        return self.chain[-1]

    def run(self, weights: Mapping[str, Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """Returns the block's output on one batch; see `with_weights`."""
        return self.with_weights(weights)(args, kwargs)

    def with_weights(
        self, weights: Mapping[str, Tensor]
    ) -> Callable[[tuple[Any, ...], Mapping[str, Any]], Tensor]:
        """Returns a function that runs the block with other weights, without changing the model.

        Args:
            weights: target name -> weight `[out, in]`; targets that are not named keep their weights.

        Returns:
            A function that takes the arguments of `entry` and returns the output tensor, `[..., hidden]`.
        """
        replaced = self._as_stored(weights)
        parts: list[tuple[nn.Module, dict[str, Tensor]]] = []
        for module in self.chain:
            # Detached, so that a gradient through the block is computed for activations only.
            parameters = {name: parameter.detach() for name, parameter in module.named_parameters()}
            for name, child in module.named_modules():
                for attribute, value in replaced.get(id(child), {}).items():
                    parameters[f"{name}.{attribute}" if name else attribute] = value
            parts.append((module, parameters))

        def run(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
            for position, (module, parameters) in enumerate(parts):
                output = functional_call(module, parameters, args, dict(kwargs) if position == 0 else {})
                args = (first_tensor(output),)
            return first_tensor(args)

        return run

    def _as_stored(self, weights: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
        """Returns id of a module -> its replaced parameters, in the layout in which the model stores them."""
        whole: dict[int, dict[str, Tensor]] = {}
        experts: dict[tuple[int, str], list[Tensor]] = {}
        for name, target in self.targets.items():
            if target.expert is not None:
                matrix = target.turned(weights[name]) if name in weights else target.stored
                experts.setdefault((id(target.module), target.attribute), []).append(matrix)
            elif name in weights:
                whole.setdefault(id(target.module), {})[target.attribute] = target.turned(weights[name])
        if any(target.expert is not None for name, target in self.targets.items() if name in weights):
            for (module, attribute), matrices in experts.items():
                whole.setdefault(module, {})[attribute] = torch.stack(matrices)
        return whole


@dataclass(frozen=True)
class DecoderLayer:
    """One transformer layer.

    Attributes:
        index: index of the layer, from 0.
        name: dotted name of the layer in the model.
        module: the module of the layer.
        blocks: the layer's blocks in the order in which they run.
    """

    index: int
    name: str
    module: nn.Module
    blocks: tuple[Block, ...]

    @property
    def targets(self) -> dict[str, Target]:
        """All targets of the layer by name."""
        return {name: target for block in self.blocks for name, target in block.targets.items()}


@dataclass(frozen=True)
class Decoder:
    """The decoder layers of a model."""

    layers: tuple[DecoderLayer, ...]

    def targets(self) -> Iterator[tuple[DecoderLayer, Block, Target]]:
        """Yields every target with its layer and its block, in the order of the model."""
        for layer in self.layers:
            for block in layer.blocks:
                for target in block.targets.values():
                    yield layer, block, target

    def check_pattern(self, pattern: SparsityPattern) -> None:
        """Raises `InputError` naming the first target that `pattern` does not fit."""
        for _, _, target in self.targets():
            for_module = pattern.for_module(target.name)
            if isinstance(for_module, SemiStructured):
                for_module.check_divides(target.name, target.n_inputs)


def read_decoder(model: PreTrainedModel) -> Decoder:
    """Finds decoder layers, blocks and targets.

    Raises:
        StructureError: the structure is not understood; the message has what was found and what was expected.
    """
    name, layers = _decoder_layers(model)
    return Decoder(tuple(_read_layer(index, f"{name}.{index}", layer) for index, layer in enumerate(layers)))


def n_positions(model: PreTrainedModel) -> int | None:
    """Returns the longest sequence that a model has positions for; None if its configuration has no limit."""
    config = model.config.get_text_config()
    limits = (
        getattr(config, name, None) for name in ("max_position_embeddings", "max_seq_len")
    )  # `max_seq_len` is MPT's
    return next((number for number in limits if isinstance(number, int)), None)


def target_parameters(layer: DecoderLayer) -> dict[str, torch.nn.Parameter]:
    """Returns the current parameters that hold a layer's targets, by dotted name inside the layer."""
    names = {target.parameter_name.removeprefix(f"{layer.name}.") for target in layer.targets.values()}
    return {name: p for name, p in layer.module.named_parameters() if name in names}


def first_tensor(output: Any) -> Tensor:
    """Returns the output tensor of a module: the output itself, or the first member if it is a tuple."""
    tensor: Tensor = output[0] if isinstance(output, tuple | list) else output
    return tensor


def _decoder_layers(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Finds the module list with the most weights to prune; its members must all be of one class."""
    best: tuple[int, str, nn.ModuleList] | None = None
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList):
            size = sum(target.weight.numel() for target in _matrices(name, module))
            if size and (best is None or size > best[0]):
                best = (size, name, module)
    if best is None:
        raise StructureError(
            f"{type(model).__name__}: no decoder layers found; expected a list of equal modules with Linears"
        )
    _, name, layers = best
    kinds = sorted({type(child).__name__ for child in layers})
    if len(kinds) > 1:
        raise StructureError(
            f"{type(model).__name__}: {name} mixes {' and '.join(kinds)}; "
            "expected decoder layers of one kind, each with an attention and an MLP"
        )
    return name, layers


def _read_layer(index: int, name: str, layer: nn.Module) -> DecoderLayer:
    described = f"{name} ({type(layer).__name__})"
    holders = {
        child_name: child
        for child_name, child in layer.named_children()
        if _matrices(f"{name}.{child_name}", child)
    }
    attention = {n: c for n, c in holders.items() if "attn" in n.lower() or "attention" in n.lower()}
    rest = {n: c for n, c in holders.items() if n not in attention}
    if len(attention) != 1 or not rest:
        raise StructureError(
            f"{described}: expected one attention module and an MLP; "
            f"found modules with weight matrices: {_listed(holders)}"
        )
    blocks = (
        _block("attention", name, attention, tuple(attention.values())),
        _block("mlp", name, rest, _mlp_chain(described, layer, rest)),
    )
    _refuse_unread(name, described, layer, blocks)
    return DecoderLayer(index, name, layer, blocks)


def _refuse_unread(name: str, described: str, layer: nn.Module, blocks: tuple[Block, ...]) -> None:
    """Raises `StructureError` if the layer has matrices that are neither targets nor routers."""
    read = {target.parameter_name for block in blocks for target in block.targets.values()}
    routing = _routing(layer)
    for owner_name, owner in layer.named_modules():
        for attribute, parameter in owner.named_parameters(recurse=False):
            parameter_name = f"{owner_name}.{attribute}" if owner_name else attribute
            understood = f"{name}.{parameter_name}" in read or attribute.endswith("bias")
            if parameter.ndim < 2 or understood or id(owner) in routing:
                continue
            raise StructureError(
                f"{described}: {parameter_name} {list(parameter.shape)} is no Linear's weight; expected "
                "Linears, Conv1Ds, or stacked experts with the parts transformers declares (gate_up_proj or "
                "up_proj, down_proj, and has_gate, has_bias, is_transposed)"
            )


def _mlp_chain(described: str, layer: nn.Module, rest: Mapping[str, nn.Module]) -> tuple[nn.Module, ...]:
    """Returns the modules of the MLP: one module with all matrices, or two Linears and their activation."""
    modules = list(rest.values())
    if len(modules) == 1 and not isinstance(modules[0], nn.Linear | Conv1D):
        return (modules[0],)
    activations = [
        child
        for child in layer.children()
        if not any(True for _ in child.parameters()) and not isinstance(child, nn.Dropout | nn.Identity)
    ]
    if len(modules) == 2 and all(isinstance(m, nn.Linear) for m in modules) and len(activations) == 1:
        return (modules[0], activations[0], modules[1])
    raise StructureError(
        f"{described}: expected one MLP module, or two Linears with one activation; "
        f"found {_listed(rest)} and {len(activations)} activations"
    )


def _listed(modules: Mapping[str, nn.Module]) -> str:
    return ", ".join(f"{name} ({type(module).__name__})" for name, module in modules.items()) or "none"


def _block(
    kind: BlockKind, layer: str, holders: Mapping[str, nn.Module], chain: tuple[nn.Module, ...]
) -> Block:
    found = [target for name, child in holders.items() for target in _matrices(f"{layer}.{name}", child)]
    return Block(kind, chain, {target.name: target for target in found})


def _matrices(name: str, module: nn.Module) -> list[Target]:
    """Returns every matrix below `module` that may be pruned, in the order of the model."""
    routing = _routing(module)
    found: list[Target] = []
    for inner, child in module.named_modules(prefix=name):
        if isinstance(child, nn.Linear | Conv1D) and id(child) not in routing:
            found.append(
                Target(inner, child, "weight", f"{inner}.weight", transposed=isinstance(child, Conv1D))
            )
        for attribute in stacked_matrices(child):
            stack = f"{inner}.{attribute}"
            found += [
                Target(f"{stack}[{expert}]", child, attribute, stack, bool(child.is_transposed), expert)
                for expert in range(getattr(child, attribute).shape[0])
            ]
    return found


def _routing(module: nn.Module) -> set[int]:
    """Returns the ids of all modules below `module` that belong to routers of experts."""
    routers = [router for holder in module.modules() for router in _routers(holder)]
    return {id(part) for router in routers for part in router.modules()}


def _routers(holder: nn.Module) -> list[nn.Module]:
    """Returns the children of `holder` that route tokens to its experts: routers and gates."""
    children = dict(holder.named_children())
    experts = [c for name, c in children.items() if "experts" in name and not isinstance(c, nn.Linear)]
    if not any(_holds_experts(child) for child in experts):
        return []
    return [
        child
        for name, child in children.items()
        if isinstance(child, nn.Linear) or any(word in name for word in ("gate", "gating", "router"))
    ]


def _holds_experts(module: nn.Module) -> bool:
    """Whether `module` has several experts, unlike the single MLP that DeepSeek calls `shared_experts`."""
    lists = isinstance(module, nn.ModuleList) or any(isinstance(c, nn.ModuleList) for c in module.children())
    return lists or not any(isinstance(child, nn.Linear | Conv1D) for child in module.children())


__all__ = [
    "Block",
    "BlockKind",
    "Decoder",
    "DecoderLayer",
    "first_tensor",
    "n_positions",
    "read_decoder",
    "target_parameters",
]
