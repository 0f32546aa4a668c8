"""Describes how prunebench reads a model: decoder layers, blocks, targets, and which targets share an input.

No values are computed: the forward runs on tensors that have shapes only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

import torch

from methods.base import CalibrationSet, Placement
from methods.engine.hidden_states import LayerStream, at_rest
from methods.engine.statistics import InputNorms, SharedInputs
from methods.errors import StructureError
from methods.placement.layer_loading import Resident
from methods.structure.decoder import Block, Decoder, DecoderLayer, read_decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class TargetStructure:
    """One target, or the same matrix of all experts.

    Attributes:
        name: its name within the decoder layer; experts as `experts.down_proj[0..7]`.
        inputs: number of input features: the dimension along which N:M groups run.
        outputs: number of output features.
        stored: the shape of its parameter.
        transposed: whether it is stored as `[in, out]`.
        experts: number of experts; None if it does not belong to experts.
        shares_input_with: the first target that reads the same tensor; None if it is the first itself.
    """

    name: str
    inputs: int
    outputs: int
    stored: tuple[int, ...]
    transposed: bool
    experts: int | None
    shares_input_with: str | None


@dataclass(frozen=True)
class BlockStructure:
    """One block: its kind, the classes of its modules, and its targets."""

    kind: str
    modules: tuple[str, ...]
    targets: tuple[TargetStructure, ...]


@dataclass(frozen=True)
class LayerStructure:
    """Consecutive decoder layers with the same structure.

    Attributes:
        first: index of the first of them.
        last: index of the last of them.
        name: name of the first layer.
        kind: the layers' class.
        blocks: the blocks of one layer.
        not_pruned: matrices that are not targets (routers, gates of shared experts), with their shapes.
    """

    first: int
    last: int
    name: str
    kind: str
    blocks: tuple[BlockStructure, ...]
    not_pruned: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class ModelStructure:
    """The structure of a whole model.

    Attributes:
        architecture: the model's class.
        parameters: number of parameters.
        target_weights: number of weights that may be pruned.
        layers: its decoder layers, grouped by structure.
        sharing_unknown: why `shares_input_with` could not be determined; None if it was.
    """

    architecture: str
    parameters: int
    target_weights: int
    layers: tuple[LayerStructure, ...]
    sharing_unknown: str | None = None

    def lines(self) -> Iterator[str]:
        """Yields the structure as lines of text for people."""
        share = self.target_weights / self.parameters
        yield f"{self.architecture}: {self.parameters:,} parameters"
        yield f"targets: {self.target_weights:,} weights, {share:.0%} of them"
        for layer in self.layers:
            span = (
                f"layer {layer.first}" if layer.first == layer.last else f"layers {layer.first}-{layer.last}"
            )
            yield f"decoder {span}: {layer.kind} ({layer.name})"
            for block in layer.blocks:
                yield f"  {block.kind} block: {' -> '.join(block.modules)}"
                for target in block.targets:
                    yield f"    {_line(target)}"
            for name, shape in layer.not_pruned.items():
                yield f"  never pruned: {name} {list(shape)}"
        if self.sharing_unknown:
            yield f"cannot tell without values which targets share an input: {self.sharing_unknown}"


def read_structure(model: PreTrainedModel) -> ModelStructure:
    """Reads the structure of a model, which may be on the meta device.

    Raises:
        StructureError: it cannot be read; the message reports what was found and what was expected.
    """
    decoder = read_decoder(model)
    unknown: str | None = None
    leaders: Mapping[str, str] = {}
    try:
        with _without_values(model, decoder) as stream:
            leaders = _leaders(stream, decoder)
    except StructureError:
        raise
    except (
        Exception
    ) as error:  # raised by the model's code on tensors without values; the rest is still known
        unknown = " ".join(f"{type(error).__name__}: {error}".split())
    layers = [_read_layer(layer, leaders) for layer in decoder.layers]
    runs = [
        list(run) for _, run in groupby(layers, key=lambda layer: replace(layer, first=0, last=0, name=""))
    ]
    return ModelStructure(
        architecture=type(model).__name__,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        target_weights=sum(target.weight.numel() for _, _, target in decoder.targets()),
        layers=tuple(replace(run[0], last=run[-1].last) for run in runs),
        sharing_unknown=unknown,
    )


def check_chain(model: PreTrainedModel) -> None:
    """Checks that a model can be run layer by layer, as far as this can be decided without its weights.

    Args:
        model: a model on the meta device.

    Raises:
        StructureError: its structure cannot be read, or its layers are not run once each, one after another.
    """
    try:
        with _without_values(model, read_decoder(model)):
            pass
    except StructureError:
        raise
    except Exception:  # raised by the model's code on tensors without values: checked again with values later
        return


@contextmanager
def _without_values(model: PreTrainedModel, decoder: Decoder) -> Iterator[LayerStream]:
    """Yields a stream that carries a few tokens through a model's layers, computing shapes only."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    tokens = CalibrationSet(torch.zeros(1, 8, dtype=torch.int64), "shapes only")
    with at_rest(model), FakeTensorMode(allow_non_fake_inputs=True):
        yield LayerStream.of_calibration(model, decoder, tokens, Resident(model, decoder, Placement(1)))


def _leaders(stream: LayerStream, decoder: Decoder) -> dict[str, str]:
    """Maps each target to the first target that reads the same tensor."""
    leaders: dict[str, str] = {}
    for layer in decoder.layers:
        shared = SharedInputs(layer.targets, InputNorms.of)
        with shared.collecting():
            stream.forward(layer, 0)
        leaders.update((name, leader) for leader, group in shared.groups.items() for name in group)
    return leaders


def _read_layer(layer: DecoderLayer, leaders: Mapping[str, str]) -> LayerStructure:
    targets = {target.parameter_name for target in layer.targets.values()}
    not_pruned = {
        name: tuple(parameter.shape)
        for name, parameter in layer.module.named_parameters()
        if parameter.ndim >= 2 and f"{layer.name}.{name}" not in targets and not name.endswith("bias")
    }
    return LayerStructure(
        first=layer.index,
        last=layer.index,
        name=layer.name,
        kind=type(layer.module).__name__,
        blocks=tuple(_read_block(layer, block, leaders) for block in layer.blocks),
        not_pruned=not_pruned,
    )


def _read_block(layer: DecoderLayer, block: Block, leaders: Mapping[str, str]) -> BlockStructure:
    found: list[TargetStructure] = []
    for name, target in block.targets.items():
        leader = leaders.get(name, name)
        stack = getattr(target.module, target.attribute)
        n_experts = None if target.expert is None else stack.shape[0]
        if target.expert:
            continue  # the first expert represents all of them
        short = name.removeprefix(f"{layer.name}.")
        if n_experts is not None:
            short = f"{short.removesuffix('[0]')}[0..{n_experts - 1}]"
        found.append(
            TargetStructure(
                name=short,
                inputs=target.n_inputs,
                outputs=target.shape[0],
                stored=tuple(stack.shape),
                transposed=target.transposed,
                experts=n_experts,
                shares_input_with=None if leader == name else leader.removeprefix(f"{layer.name}."),
            )
        )
    return BlockStructure(block.kind, tuple(type(module).__name__ for module in block.chain), tuple(found))


def _line(target: TargetStructure) -> str:
    notes = []
    if target.transposed:
        notes.append(f"stored transposed {list(target.stored)}")
    if target.experts is not None:
        notes.append(f"{target.experts} experts, each judged on the tokens routed to it")
    if target.shares_input_with is not None:
        notes.append(f"same input as {target.shares_input_with}")
    shape = f"{target.inputs} -> {target.outputs}"
    return f"{target.name:<32} {shape:<16} {'; '.join(notes)}".rstrip()


__all__ = ["BlockStructure", "LayerStructure", "ModelStructure", "TargetStructure", "read_structure"]
