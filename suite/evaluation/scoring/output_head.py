"""A causal language model in two halves: its body makes hidden states, its own head makes logits of them.

The head is small beside the body, but its logits are large: a vocabulary is a hundred times as wide as a
hidden state. In two halves, logits exist for a few tokens at a time, and a dense model's hidden states can be
kept and turned into logits again beside a pruned model's, without the dense model.
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
    """The model cannot be taken apart: its head, given its body's hidden states, does not give its logits."""


class OutputHead:
    """The two halves of one model.

    Nothing is assumed of a family: the body is the first module that the model's own forward calls, and the
    head is whatever that forward does afterwards (projection, scaling, soft-capping), run with the hidden
    states put in the body's place.

    Args:
        model: a causal language model in evaluation mode.
        probe: int64 `[n]`, token ids on which the two halves are held against the whole model; the first
            few are enough.

    Raises:
        HeadError: the halves do not make the whole.
    """

    def __init__(self, model: PreTrainedModel, probe: Tensor) -> None:
        self._model = model
        # Not the model's device: its first parameter may lie in a layer that is not there.
        input_ids = probe[None, :PROBED_TOKENS].to(model.get_input_embeddings().weight.device)
        body, whole = _first_called(model, input_ids)
        self._body = body
        self._output: type[Any] | None = None
        self._hold_against(whole, input_ids)

    @torch.inference_mode()
    def hidden(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """What the body hands to the head.

        Args:
            input_ids: int64 `[batch, seqlen]`, on the model's device.
            attention_mask: int64 `[batch, seqlen]`, 0 where there is padding.

        Returns:
            `[batch, seqlen, hidden]`, in the model's dtype.
        """
        output = self._body(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        self._output = type(output)
        hidden: Tensor = output.last_hidden_state
        return hidden

    @torch.inference_mode()
    def logits(self, hidden_TH: Tensor) -> Tensor:
        """The model's own logits of hidden states, `[n, hidden]` -> `[n, vocabulary]`, in its dtype."""
        assert self._output is not None, "hidden comes first"
        output = self._output(last_hidden_state=hidden_TH[None])
        tokens = torch.zeros(1, len(hidden_TH), dtype=torch.int64, device=hidden_TH.device)
        with replaced_forward(self._body, lambda *args, **kwargs: output):
            logits: Tensor = self._model(input_ids=tokens, use_cache=False).logits
        return logits[0]

    def detached(self) -> OutputHead:
        """A copy of the head alone, with its own weights, that outlives the model; its body cannot be run."""
        without_body = nn.Module()
        twin = copy.copy(self)
        twin._model = copy.deepcopy(self._model, {id(self._body): without_body})
        twin._body = without_body
        return twin

    def _hold_against(self, whole_TV: Tensor, input_ids: Tensor) -> None:
        """Raises `HeadError` unless the halves give the whole's logits `[n, vocabulary]` but for rounding."""
        halves_TV = self.logits(self.hidden(input_ids)[0]).float()
        # Products of other shapes round differently, by a few units of the last place of the largest.
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
    """The first module that the model's forward calls, and its logits `[n, vocabulary]`, fp32."""
    called: list[nn.Module] = []
    watch = register_module_forward_pre_hook(lambda module, _: called.append(module))
    try:
        whole: Tensor = model(input_ids=input_ids, use_cache=False).logits[0].float()
    finally:
        watch.remove()
    return called[1], whole  # the model itself is the first


__all__ = ["HeadError", "OutputHead"]
