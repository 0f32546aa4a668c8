"""Splits a causal language model: its body computes hidden states, its own head turns them into logits.

The head is small compared with the body, but its logits are large: a vocabulary is a hundred times as wide as
a hidden state. Once split, logits can be computed for a few tokens at a time, and a dense model's hidden
states can be kept and turned into logits later for comparison with a pruned model, without the dense model.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from methods.errors import PruningError
from methods.structure.forward_override import replaced_forward

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBED_TOKENS = 16


class HeadError(PruningError):
    """The model cannot be split: its head does not return its logits for its body's hidden states."""


class OutputHead:
    """The two halves of one model.

    This works for any family: the body is the first module that the model's own forward calls, and the head
    is everything that this forward does afterwards (projection, scaling, soft-capping), run with the given
    hidden states in place of the body's output.

    Args:
        model: a causal language model in evaluation mode.
        probe: token ids, int64 `[n]`, on which the two halves are compared with the whole model; only the
            first few are used.

    Raises:
        HeadError: the two halves do not compute the same as the whole model.
    """

    def __init__(self, model: PreTrainedModel, probe: Tensor) -> None:
        self._model = model
        # Not `model.device`: that is the device of its first parameter, whose layer may not be loaded.
        input_ids = probe[None, :PROBED_TOKENS].to(model.get_input_embeddings().weight.device)
        body, whole = _first_called(model, input_ids)
        self._body = body
        self._output: type[Any] | None = None
        self._hold_against(whole, input_ids)

    @torch.inference_mode()
    def hidden(self, input_ids: Tensor, attention_mask: Tensor | None = None, **more: Tensor) -> Tensor:
        """Runs the body and returns the hidden states that it passes to the head.

        Args:
            input_ids: token ids, int64 `[batch, seqlen]`, on the model's device.
            attention_mask: int64 `[batch, seqlen]`, 0 at padding; or `[batch, 1, seqlen, seqlen]`, which is
                added to the attention's scores.
            more: further arguments of the body: position_ids.

        Returns:
            `[batch, seqlen, hidden]`, in the model's dtype.
        """
        output = self._body(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **more)
        self._output = type(output)
        hidden: Tensor = output.last_hidden_state
        return hidden

    @torch.inference_mode()
    def logits(self, hidden_TH: Tensor) -> Tensor:
        """Computes the model's logits of hidden states, `[n, hidden]` -> `[n, vocabulary]`, in its dtype."""
        assert self._output is not None, "call hidden first"
        output = self._output(last_hidden_state=hidden_TH[None])
        tokens = torch.zeros(1, len(hidden_TH), dtype=torch.int64, device=hidden_TH.device)
        with replaced_forward(self._body, lambda *args, **kwargs: output):
            logits: Tensor = self._model(input_ids=tokens, use_cache=False).logits
        return logits[0]

    def detached(self) -> OutputHead:
        """Returns a copy of the head with its own weights that outlives the model; its body cannot be run."""
        without_body = nn.Module()
        twin = copy.copy(self)
        twin._model = copy.deepcopy(self._model, {id(self._body): without_body})
        twin._body = without_body
        return twin

    def _hold_against(self, whole_TV: Tensor, input_ids: Tensor) -> None:
        """Raises `HeadError` unless the halves return the model's logits `[n, vocabulary]` up to rounding."""
        halves_TV = self.logits(self.hidden(input_ids)[0]).float()
        # Products of other shapes round differently: a few units in the last place of the largest value.
        share = max(4 * torch.finfo(self._model.dtype).eps, 1e-4)
        tolerance = share * float(whole_TV.nan_to_num(posinf=0.0, neginf=0.0).abs().max())
        if halves_TV.shape != whole_TV.shape or not torch.allclose(
            halves_TV, whole_TV, rtol=0.0, atol=tolerance, equal_nan=True
        ):
            raise HeadError(
                f"{type(self._model).__name__}: its head, given its body's hidden states, gives other logits"
            )


@torch.inference_mode()
def _first_called(model: PreTrainedModel, input_ids: Tensor) -> tuple[nn.Module, Tensor]:
    """Returns the first module that the model's forward calls, and the logits `[n, vocabulary]`, fp32."""
    called: list[nn.Module] = []
    watch = register_module_forward_pre_hook(lambda module, _: called.append(module))
    try:
        whole: Tensor = model(input_ids=input_ids, use_cache=False).logits[0].float()
    finally:
        watch.remove()
    return called[1], whole  # the model itself is the first


__all__ = ["HeadError", "OutputHead"]
