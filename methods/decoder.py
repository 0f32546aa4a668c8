"""Reads the structure of a causal language model: decoder layers, their blocks, the target Linears.

The only file that knows how model families differ. It goes by structure: the decoder layers are the
largest list of equal modules, the attention block is the child that says so, and the MLP block is what else
holds Linears.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn
from torch.func import functional_call

from methods.errors import StructureError
from methods.pattern import SemiStructured, SparsityPattern

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BlockKind = Literal["attention", "mlp"]


@dataclass(frozen=True)
class Block:
    """The attention or the MLP of one decoder layer.

    Attributes:
        kind: which of the two.
        chain: the modules that make it up, called one after another. One module in most families; OPT's MLP
            has none of its own and is fc1, activation, fc2.
        targets: dotted name in the model -> Linear to prune, in the order of the model.
    """

    kind: BlockKind
    chain: tuple[nn.Module, ...]
    targets: Mapping[str, nn.Linear]

    @property
    def entry(self) -> nn.Module:
        """The module whose input is the block's input."""
        return self.chain[0]

    @property
    def exit(self) -> nn.Module:
        """The module whose output is the block's output."""
        return self.chain[-1]

    def run(self, weights: Mapping[str, Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """The block's output with other weights in its targets, the model's own left as they are.

        Args:
            weights: target name -> weight `[out, in]`; a target that is not named keeps its own.
            args: what `entry` was called with.
            kwargs: likewise.

        Returns:
            The output tensor, `[..., hidden]`.
        """
        home = {id(linear): weights[name] for name, linear in self.targets.items() if name in weights}
        for position, module in enumerate(self.chain):
            # Detached, so that a gradient taken through the block reaches activations only.
            parameters = {name: parameter.detach() for name, parameter in module.named_parameters()}
            for name, child in module.named_modules():
                if id(child) in home:
                    parameters[f"{name}.weight" if name else "weight"] = home[id(child)]
            output = functional_call(module, parameters, args, dict(kwargs) if position == 0 else {})
            args = (first_tensor(output),)
        return first_tensor(args)


@dataclass(frozen=True)
class DecoderLayer:
    """One transformer layer.

    Attributes:
        index: its place, from 0.
        name: its dotted name in the model.
        module: itself.
        blocks: its blocks in the order in which they run.
    """

    index: int
    name: str
    module: nn.Module
    blocks: tuple[Block, ...]

    @property
    def targets(self) -> dict[str, nn.Linear]:
        """All its target modules by dotted name."""
        return {name: linear for block in self.blocks for name, linear in block.targets.items()}


@dataclass(frozen=True)
class Decoder:
    """The decoder layers of a model."""

    layers: tuple[DecoderLayer, ...]

    def targets(self) -> Iterator[tuple[DecoderLayer, Block, str, nn.Linear]]:
        """Every target module with its layer, its block and its dotted name, in the order of the model."""
        for layer in self.layers:
            for block in layer.blocks:
                for name, linear in block.targets.items():
                    yield layer, block, name, linear

    def check_pattern(self, pattern: SparsityPattern) -> None:
        """Raises `InputError` naming the first target module that `pattern` does not fit."""
        for _, _, name, linear in self.targets():
            for_module = pattern.for_module(name)
            if isinstance(for_module, SemiStructured):
                for_module.check_divides(name, linear.weight.shape[1])


def read_decoder(model: PreTrainedModel) -> Decoder:
    """Finds decoder layers, blocks and targets.

    Raises:
        StructureError: says what was found and what was expected.
    """
    name, layers = _decoder_layers(model)
    return Decoder(tuple(_read_layer(index, f"{name}.{index}", layer) for index, layer in enumerate(layers)))


def first_tensor(output: Any) -> Tensor:
    """A module's output: the tensor itself, or the first member of a tuple."""
    tensor: Tensor = output[0] if isinstance(output, tuple | list) else output
    return tensor


def _decoder_layers(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The module list with the most parameters in Linears whose members are all of one class."""
    best: tuple[int, str, nn.ModuleList] | None = None
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len({type(child) for child in module}) == 1:
            size = sum(linear.weight.numel() for linear in module.modules() if isinstance(linear, nn.Linear))
            if size and (best is None or size > best[0]):
                best = (size, name, module)
    if best is None:
        raise StructureError(
            f"{type(model).__name__}: no decoder layers found; expected a list of equal modules with Linears"
        )
    return best[1], best[2]


def _read_layer(index: int, name: str, layer: nn.Module) -> DecoderLayer:
    holders = {
        child_name: child for child_name, child in layer.named_children() if _linears(child_name, child)
    }
    for parameter_name, parameter in layer.named_parameters():
        if parameter.ndim > 2:
            raise StructureError(
                f"{name} ({type(layer).__name__}): {parameter_name} stacks matrices {list(parameter.shape)}; "
                "expected every weight to be a Linear's, so mixtures of experts cannot be pruned yet"
            )
    attention = {n: c for n, c in holders.items() if "attn" in n.lower() or "attention" in n.lower()}
    rest = {n: c for n, c in holders.items() if n not in attention}
    if len(attention) != 1 or not rest:
        raise StructureError(
            f"{name} ({type(layer).__name__}): expected one attention module and an MLP; "
            f"found modules with Linears: {', '.join(holders) or 'none'}"
        )
    blocks = (
        _block("attention", name, attention, tuple(attention.values())),
        _block("mlp", name, rest, _mlp_chain(name, layer, rest)),
    )
    return DecoderLayer(index, name, layer, blocks)


def _mlp_chain(name: str, layer: nn.Module, rest: Mapping[str, nn.Module]) -> tuple[nn.Module, ...]:
    """The modules of the MLP: one that holds all its Linears, or two loose Linears and their activation."""
    modules = list(rest.values())
    if len(modules) == 1 and not isinstance(modules[0], nn.Linear):
        return (modules[0],)
    activations = [
        child
        for child in layer.children()
        if not any(True for _ in child.parameters()) and not isinstance(child, nn.Dropout | nn.Identity)
    ]
    if len(modules) == 2 and all(isinstance(m, nn.Linear) for m in modules) and len(activations) == 1:
        return (modules[0], activations[0], modules[1])
    raise StructureError(
        f"{name} ({type(layer).__name__}): expected one MLP module, or two Linears with one activation; "
        f"found {', '.join(rest)} and {len(activations)} activations"
    )


def _block(
    kind: BlockKind, layer: str, holders: Mapping[str, nn.Module], chain: tuple[nn.Module, ...]
) -> Block:
    targets = {
        f"{layer}.{name}": linear for n, c in holders.items() for name, linear in _linears(n, c).items()
    }
    return Block(kind, chain, targets)


def _linears(name: str, module: nn.Module) -> dict[str, nn.Linear]:
    return {
        f"{name}.{inner}" if inner else name: child
        for inner, child in module.named_modules()
        if isinstance(child, nn.Linear)
    }


__all__ = ["Block", "BlockKind", "Decoder", "DecoderLayer", "first_tensor", "read_decoder"]
