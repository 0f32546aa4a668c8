"""The official implementations' decisions on two tiny models (tests/golden)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from methods.base import CalibrationSet

FOLDER = Path(__file__).parent.parent / "golden"


@dataclass(frozen=True)
class GoldenRun:
    family: str
    file: str
    method: str
    initial: str | None
    pattern: str
    granularity: str | None
    rebuild_ratio: float | None
    keep_reconstruction: bool

    @property
    def folder(self) -> Path:
        return FOLDER / self.family

    @property
    def id(self) -> str:
        return f"{self.family}-{self.file}"

    @property
    def initial_file(self) -> str:
        """The run whose masks this one started from."""
        return f"{self.initial}-{self.pattern.replace(':', 'of')}"

    def keep(self, file: str | None = None) -> dict[str, Tensor]:
        """Module name -> official keep-mask `[out, in]`."""
        shapes = {name: linear.weight.shape for name, linear in linears(load_model(self.family)).items()}
        return unpacked(self.folder / f"{file or self.file}.keep.safetensors", shapes)

    def weights(self) -> dict[str, Tensor]:
        """Module name -> official final weight, where it is stored."""
        path = self.folder / f"{self.file}.weights.safetensors"
        return load_file(path) if path.exists() else {}


def unpacked(file: Path, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Module name -> keep-mask `[out, in]`, of a file of packed bits."""
    return {
        name: torch.from_numpy(np.unpackbits(bits.numpy(), count=shapes[name].numel()).astype(bool)).reshape(
            shapes[name]
        )
        for name, bits in load_file(file).items()
    }


def golden_runs() -> list[GoldenRun]:
    return [
        GoldenRun(
            family=folder.name,
            file=run["file"],
            method=run["method"],
            initial=run["init"],
            pattern=run["pattern"],
            granularity=run["granularity"],
            rebuild_ratio=run["rebuild_ratio"],
            keep_reconstruction=run["keep_reconstruction"],
        )
        for folder in sorted(FOLDER.glob("tiny-*"))
        for run in json.loads((folder / "index.json").read_text())["runs"]
    ]


def load_model(family: str) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(FOLDER / family / "model", dtype=torch.float32).eval()


@lru_cache
def calibration(family: str) -> CalibrationSet:
    return CalibrationSet(
        load_file(FOLDER / family / "calibration.safetensors")["input_ids"], source="golden"
    )


def linears(model: PreTrainedModel) -> dict[str, torch.nn.Linear]:
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and ".layers." in name
    }
