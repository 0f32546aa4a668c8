"""Full prunes of a LLaMA model from the parts of `benchmarks.plain`: layer by layer, sample by sample."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks import plain

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Masks = dict[str, Tensor]
"""Maps a parameter name to a keep-mask bool `[out, in]`."""

DAMPING = 0.01
RATIO = 0.01


@dataclass(frozen=True)
class Pattern:
    """The pattern to prune to.

    Attributes:
        sparsity: sparsity of each comparison group.
        n_of_m: number kept and size of each group of inputs; None for unstructured.
    """

    sparsity: float
    n_of_m: tuple[int, int] | None = None

    def keep(self, scores: Tensor) -> Tensor:
        """Returns the keep-mask for scores `[groups, n]`."""
        if self.n_of_m is not None:
            return plain.prune_n_of_m(scores, *self.n_of_m)
        return plain.prune_lowest(scores, int(scores.shape[1] * self.sparsity))


def read_pattern(text: str) -> Pattern:
    """Parses `0.5` or `2:4`."""
    if ":" not in text:
        return Pattern(float(text))
    n, m = (int(part) for part in text.split(":"))
    return Pattern((m - n) / m, (n, m))


def magnitude(model: PreTrainedModel, pattern: Pattern, _: Tensor) -> Masks:
    """Magnitude: |W|, compared within the whole Linear."""
    keep = {}
    for name, linear in _linears(model.model.layers, "model.layers").items():
        scores = linear.weight.detach().float().abs()
        shape = scores.shape
        keep[name] = pattern.keep(scores if pattern.n_of_m else scores.reshape(1, -1)).reshape(shape)
        _write(linear, linear.weight.detach(), keep[name])
    return keep


def wanda(model: PreTrainedModel, pattern: Pattern, ids: Tensor) -> Masks:
    """Wanda: |W| times the norm of each input, compared within each row."""

    def decide(linear: nn.Linear, samples: list[Tensor]) -> Tensor:
        weight = linear.weight.detach()
        keep = pattern.keep(weight.float().abs() * plain.input_norms(samples).sqrt())
        _write(linear, weight, keep)
        return keep

    return _layer_by_layer(model, ids, decide)


def sparsegpt(model: PreTrainedModel, pattern: Pattern, ids: Tensor) -> Masks:
    """SparseGPT, with a separate Hessian and factor for each Linear."""

    def decide(linear: nn.Linear, samples: list[Tensor]) -> Tensor:
        factor = plain.inverse_factor(plain.gram(samples) * 2 / len(samples), DAMPING)
        unstructured = pattern.sparsity if pattern.n_of_m is None else None
        keep, weight = plain.solve_columns(
            linear.weight.detach().float(), factor, sparsity=unstructured, n_of_m=pattern.n_of_m
        )
        _write(linear, weight.to(linear.weight.dtype), keep)
        return keep

    return _layer_by_layer(model, ids, decide)


def llm_barber(model: PreTrainedModel, pattern: Pattern, ids: Tensor) -> Masks:
    """LLM-Barber from Wanda, by rows: one backward per sample through an fp32 copy of each block."""
    dense = {
        name: linear.weight.detach().clone()
        for name, linear in _linears(model.model.layers, "model.layers").items()
    }
    first = wanda(model, pattern, ids)
    keep: Masks = {}
    hidden, given = _first_inputs(model, ids)
    for index, layer in enumerate(model.model.layers):
        for child in ("self_attn", "mlp"):
            prefix = f"model.layers.{index}.{child}"
            calls = [_call_of(layer, layer.get_submodule(child), x, given) for x in hidden]
            squares = _squares(layer.get_submodule(child), prefix, dense, calls)
            for name, linear in _linears(layer.get_submodule(child), prefix).items():
                scores = dense[name].float().abs() * (squares[name] / len(calls)).sqrt()
                if pattern.n_of_m is None:
                    keep[name] = plain.rebuild(first[name], scores, RATIO)
                else:
                    keep[name] = plain.rebuild_n_of_m(first[name], scores, pattern.n_of_m[1], RATIO)
                _write(linear, dense[name], keep[name])
        with torch.no_grad():
            hidden = [_first(layer(x, **given)) for x in hidden]
    return keep


METHODS: Mapping[str, Callable[[PreTrainedModel, Pattern, Tensor], Masks]] = {
    "magnitude": magnitude,
    "wanda": wanda,
    "sparsegpt": sparsegpt,
    "llm-barber": llm_barber,
}
"""Plain methods by the registered names of ours."""


def _layer_by_layer(
    model: PreTrainedModel, ids: Tensor, decide: Callable[[nn.Linear, list[Tensor]], Tensor]
) -> Masks:
    keep: Masks = {}
    hidden, given = _first_inputs(model, ids)
    for index, layer in enumerate(model.model.layers):
        linears = _linears(layer, f"model.layers.{index}")
        read: dict[str, list[Tensor]] = {name: [] for name in linears}
        with ExitStack() as hooks, torch.no_grad():
            for name, linear in linears.items():

                def note(_: nn.Module, args: Any, samples: list[Tensor] = read[name]) -> None:
                    samples.append(args[0].reshape(-1, args[0].shape[-1]))

                hooks.callback(linear.register_forward_pre_hook(note).remove)
            for x in hidden:
                layer(x, **given)
        for name, linear in linears.items():
            keep[name] = decide(linear, read[name])
        with torch.no_grad():
            hidden = [_first(layer(x, **given)) for x in hidden]
    return keep


def _first_inputs(model: PreTrainedModel, ids: Tensor) -> tuple[list[Tensor], dict[str, Any]]:
    """Returns the input of the first layer for each sample, and the other arguments of every layer."""
    hidden: list[Tensor] = []
    given: dict[str, Any] = {}

    class Caught(Exception):  # noqa: N818  # ends a forward early; not an error
        pass

    def catch(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
        hidden.append(args[0])
        given.update(kwargs)
        raise Caught

    hook = model.model.layers[0].register_forward_pre_hook(catch, with_kwargs=True)
    with torch.no_grad():
        for sample in ids:
            try:
                model(input_ids=sample[None], use_cache=False)
            except Caught:
                continue
    hook.remove()
    return hidden, given


def _call_of(
    layer: nn.Module, block: nn.Module, x: Tensor, given: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], Tensor]:
    """Returns the arguments of the block within the layer, and its output."""
    calls = []

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        calls.append((args, kwargs, _first(output)))

    hook = block.register_forward_hook(note, with_kwargs=True)
    with torch.no_grad():
        layer(x, **given)
    hook.remove()
    return calls[0]


def _squares(
    block: nn.Module, prefix: str, dense: Mapping[str, Tensor], calls: list[Any]
) -> dict[str, Tensor]:
    """Sums over samples the squared gradients of the dense block's distance from the sparse output."""
    alone = copy.deepcopy(block).float()
    linears = _linears(alone, prefix)
    for name, linear in linears.items():
        linear.weight = nn.Parameter(dense[name].float())
    squares = {name: torch.zeros_like(linear.weight.data) for name, linear in linears.items()}
    for args, kwargs, output in calls:
        alone.zero_grad()
        loss = (_first(alone(*_as_fp32(args), **_as_fp32(kwargs))) - output.float()).square().mean()
        loss.backward()
        for name, linear in linears.items():
            assert linear.weight.grad is not None
            squares[name] += linear.weight.grad**2
    return squares


def _as_fp32(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, tuple):
        return tuple(_as_fp32(member) for member in value)
    return {key: _as_fp32(member) for key, member in value.items()} if isinstance(value, dict) else value


def _linears(module: nn.Module, prefix: str) -> dict[str, nn.Linear]:
    """Maps names of weights to Linears, for all Linears below `module`."""
    return {
        f"{prefix}.{name}.weight": child
        for name, child in module.named_modules()
        if isinstance(child, nn.Linear)
    }


def _write(linear: nn.Linear, weight: Tensor, keep: Tensor) -> None:
    with torch.no_grad():
        linear.weight.copy_(torch.where(keep, weight, 0))


def _first(output: Any) -> Tensor:
    tensor: Tensor = output[0] if isinstance(output, tuple) else output
    return tensor


__all__ = ["METHODS", "Masks", "Pattern", "read_pattern"]
