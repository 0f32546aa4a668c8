"""Damage to tensors: their names, types, shapes and values."""

from __future__ import annotations

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.fuzz.damage.base import Damaged


def drop_tensor(at: Damaged) -> str:
    def change(tensors: dict[str, Tensor]) -> str:
        name = at.pick(tensors)
        del tensors[name]
        return name

    return at.change_tensors(change)


def add_tensor(at: Damaged) -> str:
    def change(tensors: dict[str, Tensor]) -> str:
        layer = (
            f"{at.pick(['model.layers', 'model.decoder.layers', 'transformer.h'])}.{at.chance.randrange(3)}"
        )
        inner = at.pick(["self_attn.q_proj.bias", "mlp.up_proj.bias", "self_attn.rotary_emb.inv_freq", "new"])
        name = at.pick([f"{layer}.{inner}", "score.weight", "lm_head.bias", "model.norm.bias", "new.weight"])
        tensors[name] = torch.randn(at.pick([16, 32]))
        return name

    return at.change_tensors(change)


def rename_tensor(at: Damaged) -> str:
    def change(tensors: dict[str, Tensor]) -> str:
        name = at.pick(tensors)
        new = at.pick(
            [
                name.removeprefix("model."),
                f"model.{name}",
                f"module.{name}",
                f"{name}.weight",
                name.upper(),
                name.replace(".0.", ".1."),
                name.replace("proj", "projection"),
            ]
        )
        tensors[new] = tensors.pop(name)
        return f"{name} becomes {new}"

    return at.change_tensors(change)


DTYPES = {
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "int64": torch.int64,
    "bool": torch.bool,
    "float8": torch.float8_e4m3fn,
}


def retype_tensor(at: Damaged) -> str:
    dtype = at.pick(DTYPES)

    def change(tensors: dict[str, Tensor]) -> str:
        name = at.pick(tensors)
        tensors[name] = tensors[name].to(DTYPES[dtype])
        return f"{name} as {dtype}"

    return at.change_tensors(change)


def retype_all(at: Damaged) -> str:
    dtype = at.pick(["float64", "float16", "bfloat16", *DTYPES])
    for path in at.weight_files:
        tensors = {name: tensor.to(DTYPES[dtype]) for name, tensor in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})
    return dtype


def reshape_tensor(at: Damaged) -> str:
    def change(tensors: dict[str, Tensor]) -> str:
        name = at.pick(tensors)
        tensor = tensors[name]
        tensors[name] = at.pick(
            [
                tensor.reshape(-1),
                tensor[None],
                tensor[:-1],
                tensor[:0],
                tensor.repeat(2, *[1] * (tensor.dim() - 1)),
            ]
        )
        return f"{name} {list(tensor.shape)} becomes {list(tensors[name].shape)}"

    return at.change_tensors(change)


def transpose_tensor(at: Damaged) -> str:
    def change(tensors: dict[str, Tensor]) -> str:
        square = [name for name, t in tensors.items() if t.dim() == 2 and t.shape[0] == t.shape[1]]
        matrices = [name for name, tensor in tensors.items() if tensor.dim() == 2]
        name = at.pick((square if at.chance.random() < 0.5 else matrices) or tensors)
        tensors[name] = tensors[name].mT if tensors[name].dim() > 1 else tensors[name].flip(0)
        return name

    return at.change_tensors(change)


def duplicate_tensor(at: Damaged) -> str:
    def change(tensors: dict[str, Tensor]) -> str:
        name = at.pick(tensors)
        new = at.pick(
            [
                *("lm_head.weight", "copy.weight", name.removeprefix("model."), f"model.{name}"),
                *(name.replace(".1.", ".2."), name.replace(".0.", ".1."), name.replace("weight", "weight_g")),
            ]
        )
        tensors[new] = tensors[name] + at.pick([0, 0, 0.5])
        return f"{name} as {new} too"

    return at.change_tensors(change)


def spoil_values(at: Damaged) -> str:
    value = at.pick(["nan", "inf", "-inf", "1e38", "1e20", "zero", "all zero", "denormal"])

    def change(tensors: dict[str, Tensor]) -> str:
        name = at.pick(tensors)
        flat = tensors[name].reshape(-1)
        if value == "all zero":
            flat.zero_()
        elif value == "denormal":
            flat.mul_(1e-42)
        else:
            flat[at.chance.randrange(len(flat))] = 0.0 if value == "zero" else float(value)
        return f"{value} in {name}"

    return at.change_tensors(change)


def spoil_all_values(at: Damaged) -> str:
    by = at.pick([0.0, 1e-30, 1e3, 1e15, 1e30])
    for path in at.weight_files:
        tensors = {
            name: tensor * by if "norm" not in name else tensor for name, tensor in load_file(path).items()
        }
        save_file(tensors, path, metadata={"format": "pt"})
    return f"times {by:g}"
