"""What plain transformers makes of a model's folder: the numbers that prunebench's are held against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.pytorch_utils import Conv1D

LARGEST = 20_000_000
"""Parameters, far above what any base has: a model type that is exchanged may stand for billions."""


class PlainError(Exception):
    """The library cannot load a folder, or warns that what it loads is not what was stored."""


@dataclass(frozen=True)
class Plain:
    """A folder as the library loads it, in float32.

    Attributes:
        model: its model.
        folder: where it was loaded from.
        unexpected: stored tensors that the model has no place for.
    """

    model: PreTrainedModel
    folder: Path
    unexpected: Sequence[str]

    @classmethod
    def of_folder(cls, folder: Path) -> Plain:
        """Loads a folder.

        Raises:
            PlainError: the library fails, or has to make up some of the weights.
        """
        with failing_plainly():
            with torch.device("meta"):
                described = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
            if described.num_parameters() > LARGEST:
                raise PlainError(
                    f"config.json describes a model of {described.num_parameters():,} parameters"
                )
            model, loading = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True
            )
        # Decides the form of an answer and no number; without it some of the library's own models cannot run.
        model.config.return_dict = True
        for account in ("missing_keys", "mismatched_keys", "error_msgs"):
            if loading.get(account):
                raise PlainError(f"{account}: {sorted(map(str, loading[account]))[0]}")
        return cls(model.eval(), folder, sorted(loading["unexpected_keys"]))

    @property
    def weights(self) -> dict[str, Tensor]:
        """Parameters and persistent buffers, by name."""
        return {name: value.detach() for name, value in self.model.state_dict().items()}

    def losses(self, text: str, seqlen: int, n_windows: int, n_first: int) -> list[float]:
        """The mean loss of each window of a text.

        Args:
            text: what is cut into windows.
            seqlen: tokens of a window.
            n_windows: so many are looked at.
            n_first: how many tokens that the tokenizer puts first each window begins with.

        Raises:
            PlainError: the library fails.
        """
        with failing_plainly():
            tokenizer = AutoTokenizer.from_pretrained(self.folder)
            lead = tokenizer("a")["input_ids"][:n_first]
            ids = tokenizer(text, add_special_tokens=not n_first)["input_ids"]
            size = seqlen - n_first
            rows = [lead + ids[start : start + size] for start in range(0, n_windows * size, size)]
            return self.losses_of(torch.tensor(rows), max(1, n_first))

    @torch.inference_mode()
    def losses_of(self, windows: Tensor, first: int = 1) -> list[float]:
        """The mean loss of each window `[n, seqlen]`, whose predicted tokens begin at `first`."""
        logits = self.model(windows, use_cache=False).logits[:, first - 1 : -1].float()
        losses = nn.functional.cross_entropy(logits.mT, windows[:, first:], reduction="none")
        return losses.double().mean(1).tolist()

    def holding(self, weights: Mapping[str, Tensor]) -> Plain:
        """The same model with other weights in it, in place."""
        self.model.load_state_dict(weights)
        return self


@contextmanager
def failing_plainly() -> Iterator[None]:
    """Turns whatever the library raises into a `PlainError`."""
    try:
        yield
    except Exception as error:
        raise PlainError(f"{type(error).__name__}: {error}") from error


@torch.inference_mode()
def wanda_masks(
    model: PreTrainedModel, input_ids: Tensor, layers: Mapping[str, int]
) -> dict[str, Tensor] | None:
    """Which weights Wanda keeps at 50 %, by whole forwards of the model; it is pruned on the way.

    Args:
        model: the dense model.
        input_ids: of the calibration, `[n, seqlen]`.
        layers: target -> index of its decoder layer.

    Returns:
        Target -> bool, laid out as its weight; None where a target is no module of its own, as fused experts
        are not, or where what reaches one is not finite.
    """
    modules = dict(model.named_modules())
    if not all(isinstance(modules.get(name), nn.Linear | Conv1D) for name in layers):
        return None
    masks: dict[str, Tensor] = {}
    for layer in sorted(set(layers.values())):
        names = [name for name, index in layers.items() if index == layer]
        squares: dict[str, Tensor] = {}
        hooks = [modules[name].register_forward_pre_hook(partial(_square, squares, name)) for name in names]
        for row in input_ids:
            model(row[None], use_cache=False)
        for hook in hooks:
            hook.remove()
        for name in names:
            weight = _out_in(modules[name])
            scores = weight.abs() * squares[name].sqrt()
            if not bool(scores.isfinite().all()):
                return None
            keep = scores.argsort(dim=1, stable=True).argsort(dim=1) >= weight.shape[1] // 2
            weight.mul_(keep)
            masks[name] = keep.mT if isinstance(modules[name], Conv1D) else keep
    return masks


def _square(squares: dict[str, Tensor], name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
    columns = inputs[0].reshape(-1, inputs[0].shape[-1])
    squares[name] = squares.get(name, torch.zeros(())) + columns.float().square().sum(0)


def _out_in(module: nn.Module) -> Tensor:
    weight = module.get_parameter("weight")
    return weight.mT if isinstance(module, Conv1D) else weight


__all__ = ["Plain", "PlainError", "failing_plainly", "wanda_masks"]
