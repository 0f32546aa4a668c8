"""Damage to whole files: their bytes, their places, and what lies beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from tests.fuzz.damage.base import INDEX, SINGLE, Damaged


def spoil_json(at: Damaged) -> str:
    """A JSON file that is no JSON, or none in UTF-8, or another kind of value."""
    path = at.pick(sorted(at.folder.glob("*.json")))
    data = path.read_bytes()
    ways = {
        "cut short": data[: len(data) // 2],
        "empty": b"",
        "null": b"null",
        "list": b"[" + data + b"]",
        "text": b'"text"',
        "number": b"3",
        "empty object": b"{}",
        "BOM": b"\xef\xbb\xbf" + data,
        "UTF-16": data.decode("utf-8", "replace").encode("utf-16"),
        "not UTF-8": data.replace(b'"', b'"\xff', 1),
        "not UTF-8 in a value": data.replace(b'": "', b'": "\xff', 1),
        "CRLF": data.replace(b"\n", b"\r\n"),
        "trailing comma": data.rstrip().removesuffix(b"}") + b",}",
        "trailing text": data + b"text",
        "NaN": data.replace(b": ", b': NaN, "a": ', 1),
        "twice": data + data,
        "NUL": data + b"\0",
        "nested": b"[" * 5000,
        "HTML": b"<!DOCTYPE html><html><body>Entry not found</body></html>",
    }
    how = at.pick(ways)
    path.write_bytes(ways[how])
    return f"{path.name}: {how}"


def spoil_weight_file(at: Damaged) -> str:
    path = at.pick(at.weight_files)
    data = path.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    at_random = at.chance.randrange(8, header)
    ways = {
        "cut short": data[: at.chance.randrange(len(data))],
        "a byte short": data[:-1],
        "a byte more": data + b"\0",
        "empty": b"",
        "LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 12345678\n"
        % (b"a" * 64),
        "HTML": b"<!DOCTYPE html><html><body>Entry not found</body></html>",
        "length too large": b"\xff" * 8 + data[8:],
        "length 0": bytes(8) + data[8:],
        "header byte": data[:at_random] + bytes([at.chance.randrange(256)]) + data[at_random + 1 :],
        "no metadata": _without_metadata(data, header),
        "pickle": b"PK\x03\x04" + data,
        "random": at.chance.randbytes(2000),
    }
    how = at.pick(ways)
    path.write_bytes(ways[how])
    return f"{path.name}: {how}"


def _without_metadata(data: bytes, header: int) -> bytes:
    content = json.loads(data[8:header])
    content.pop("__metadata__", None)
    text = json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text + data[header:]


def spoil_index(at: Damaged) -> str:
    """An index that does not fit its shards, or none where there are some."""
    if not (at.folder / INDEX).is_file():
        names = dict.fromkeys(load_file(at.weight_files[0]), SINGLE)
        (at.folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": names}))

    def change(content: dict[str, Any]) -> str:
        names = content["weight_map"]
        name = at.pick(names)
        how = at.pick(
            ["missing file", "missing tensor", "extra tensor", "other shard", "above", "number", "null"]
        )
        if how == "missing file":
            names[name] = "model-00009-of-00009.safetensors"
        elif how == "missing tensor":
            del names[name]
        elif how == "extra tensor":
            names["new.weight"] = names[name]
        elif how == "other shard":
            names[name] = at.pick(sorted(set(names.values())))
        elif how == "above":
            names[name] = f"../{at.folder.name}/{names[name]}"
        elif how == "number":
            names[name] = 3
        else:
            content["weight_map"] = at.pick([None, {}, []])
        return f"{how}, {name}"

    return at.change_json(INDEX, change)


def other_layout(at: Damaged) -> str:
    """The weights in one file and in shards beside it, under another name, or not at all."""
    files = at.weight_files
    how = at.pick(
        ["both", "both, other values", "renamed", "none", "index alone", "no index", "subfolder", "variant"]
    )
    if how.startswith("both"):
        tensors = {name: tensor for path in files for name, tensor in load_file(path).items()}
        if "other" in how:
            tensors = {name: tensor.flip(0) for name, tensor in tensors.items()}
        shard = "model-00001-of-00001.safetensors"
        one = SINGLE if (at.folder / INDEX).is_file() else shard
        save_file(tensors, at.folder / one, metadata={"format": "pt"})
        if one == shard:
            index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, shard)}
            (at.folder / INDEX).write_text(json.dumps(index))
    elif how == "renamed":
        files[0].rename(
            at.folder / at.pick(["weights.safetensors", "consolidated.safetensors", "pytorch_model.bin"])
        )
    elif how in ("none", "index alone"):
        for path in files:
            path.unlink()
        if how == "none":
            (at.folder / INDEX).unlink(missing_ok=True)
    elif how == "no index":
        (at.folder / INDEX).unlink(missing_ok=True)
    elif how == "variant":
        files[0].rename(at.folder / "model.fp16.safetensors")
    else:
        (at.folder / "weights").mkdir(exist_ok=True)
        files[0].rename(at.folder / "weights" / files[0].name)
    return how


ADAPTER = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "base",
    "r": 4,
    "lora_alpha": 8,
}


def extra_files(at: Damaged) -> str:
    files = {
        "README.md": b"# Model\n",
        "pytorch_model.bin": b"no pickle",
        "training_args.bin": b"",
        "optimizer.safetensors": b"",
        "consolidated.safetensors": b"no safetensors file",
        "model-00001-of-00002.safetensors": b"",
        "adapter_config.json": json.dumps({**ADAPTER, "target_modules": ["q_proj"]}).encode(),
        "adapter_model.safetensors": b"",
        "pruning.json": b'{"method": "wanda", "sparsity": 0.5}',
        "quantize_config.json": b'{"bits": 4}',
        "quantization_config.json": b'{"quant_method": "awq"}',
        "hf_quant_config.json": b'{"quantization": {"quant_algo": "FP8"}}',
        "modeling_new.py": b"raise RuntimeError('this must not run')\n",
        "preprocessor_config.json": b"{",
        "processor_config.json": b'{"processor_class": "NewProcessor"}',
        "custom_generate/generate.py": b"raise RuntimeError('this must not run')\n",
        "checkpoint-5/config.json": b"{}",
        ".cache/lock": b"",
        "config_sentence_transformers.json": b"[]",
        "params.json": b'{"dim": 32}',
        "trainer_state.json": b"{",
        "model.safetensors.index.json": b"{}",
        "tokenizer.json.lock": b"",
    }
    name = at.pick(files)
    path = at.folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(files[name])
    return name


def other_kind_of_file(at: Damaged) -> str:
    """A folder, a dangling link or a link to the file itself in the place of a file."""
    path = at.pick(sorted(path for path in at.folder.iterdir() if path.is_file()))
    how = at.pick(["folder", "dangling link", "link to itself", "link elsewhere"])
    data = path.read_bytes()
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "link elsewhere":
        (at.folder / "blobs").mkdir(exist_ok=True)
        (at.folder / "blobs" / path.name).write_bytes(data)
        path.symlink_to(Path("blobs") / path.name)
    else:
        path.symlink_to(path.name if how == "link to itself" else "nowhere")
    return f"{path.name} is a {how}"
