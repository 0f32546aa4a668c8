"""Checks whether a checkpoint can be compared with a dense model, and collects remarks on the pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from methods.errors import InputError
from methods.masks.bits import same_bits
from methods.structure.decoder import read_decoder
from suite.evaluation.inputs import Inputs, ModelKey, model_key
from suite.evaluation.scoring.responses import encode_prompts
from suite.models.loading import load_skeleton

if TYPE_CHECKING:
    from torch import Tensor

    from suite.cell import Cell
    from suite.models.loading import LoadedModel, Skeleton
    from suite.results.records.pruning_file import Pruning
    from suite.results.records.record import ModelIdentity

_HARMLESS = ("dtype", "torch_dtype", "transformers_version", "use_cache", "architectures")
"""Keys of a configuration that do not affect results."""


def check_pair(own: Cell, dense: Cell, inputs: Mapping[ModelKey, Inputs]) -> list[str]:
    """Checks that the results of a checkpoint and a dense model can be compared.

    Args:
        own: the checkpoint's cell.
        dense: the dense model's cell.
        inputs: what both cells read.

    Returns:
        One sentence on how their configurations differ; empty if they do not.

    Raises:
        InputError: their parameters differ, or their tokens of the texts or of the prompts.
    """
    pair = f"{own.model!r} cannot be compared with {dense.model!r}"
    one, other = _skeleton(own), _skeleton(dense)
    shapes, expected = _shapes(one), _shapes(other)
    if shapes != expected:
        off = next(n for n in sorted({*shapes, *expected}) if shapes.get(n) != expected.get(n))
        raise InputError(
            f"{pair}: {off} has shape {shapes.get(off, 'none')} in the first and "
            f"{expected.get(off, 'none')} in the second"
        )
    both = [inputs[model_key(cell)].windows for cell in (own, dense)]
    for spec in {**both[0], **both[1]}:
        texts = [windows[spec].corpus_digest if spec in windows else None for windows in both]
        if texts[0] != texts[1]:
            raise InputError(f"{pair}: their tokenizers make different tokens of {spec.corpus}")
    if own.answers is not None and one.tokenizer is not None and other.tokenizer is not None:
        prompts = inputs[model_key(own)].prompts[own.answers.prompts].prompts
        if encode_prompts(one.tokenizer, prompts) != encode_prompts(other.tokenizer, prompts):
            raise InputError(
                f"{pair}: their tokenizers make different tokens of the prompts (is a chat template "
                "missing?); --prompts none skips them"
            )
    return _other_settings(one.model.config.to_dict(), other.model.config.to_dict())


def other_weights(loaded: LoadedModel, dense_weight: Callable[[str], Tensor]) -> list[str]:
    """Returns one sentence if weights that pruning never changes differ from the dense model's; else nothing.

    Args:
        loaded: the checkpoint.
        dense_weight: returns a dense parameter by its name, on the host.
    """
    targets = {target.parameter_name for _, _, target in read_decoder(loaded.model).targets()}
    off = [
        name
        for name, weight in loaded.weights()
        if name not in targets and not same_bits(weight.detach().cpu(), dense_weight(name))
    ]
    if not off:
        return []
    return [f"{len(off)} parameters outside the target modules differ from the dense model's, e.g. {off[0]}"]


def check_dense(pruning: Pruning, dense: ModelIdentity, checkpoint: str) -> list[str]:
    """Checks that a dense model is the one from which a checkpoint was pruned, according to `pruning.json`.

    Args:
        pruning: the checkpoint's `pruning.json`.
        dense: the model with which it is to be compared.
        checkpoint: the checkpoint's name as given by the user.

    Returns:
        One sentence if this could not be checked because the dtypes differ; else nothing.

    Raises:
        InputError: their weights have different digests.
    """
    pruned = pruning.model
    if pruned.dtype != dense.dtype:
        return [
            f"whether it was pruned from {dense.name!r} could not be checked: its pruning.json has "
            f"the digest of the dense weights in {pruned.dtype}, and they were loaded in {dense.dtype}"
        ]
    if pruned.weight_digest != dense.weight_digest:
        raise InputError(
            f"{checkpoint!r} was not pruned from {dense.name!r}: its pruning.json says {pruned.name!r}, "
            f"weights {pruned.weight_digest[:12]}, and those of {dense.name!r} are "
            f"{dense.weight_digest[:12]}; --dense must name the model that was pruned"
        )
    return []


def _skeleton(cell: Cell) -> Skeleton:
    return load_skeleton(cell.model, revision=cell.revision, trust_remote_code=cell.trust_remote_code)


def _shapes(skeleton: Skeleton) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in skeleton.model.named_parameters()}


def _other_settings(own: Mapping[str, Any], dense: Mapping[str, Any]) -> list[str]:
    off = [
        key
        for key in sorted({*own, *dense})
        if own.get(key) != dense.get(key) and key not in _HARMLESS and not key.startswith("_")
    ]
    return [f"its config.json differs from the dense model's in {', '.join(off)}"] if off else []


__all__ = ["check_dense", "check_pair", "other_weights"]
