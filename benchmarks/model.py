"""`python -m benchmarks.model MODEL`: times every method on a real model on this machine.

MODEL is a built-in name, a local folder or a hub id. Prints a table to stdout and saves the rows as JSON.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.machine import measuring
from benchmarks.rows import Row, described, markdown, said, save_rows, setting
from benchmarks.sizes import workload
from benchmarks.timing import Bench, pruner_of, restoring, time_method
from methods.base import CalibrationSet, Placement
from methods.errors import InputError
from methods.structure.decoder import read_decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

METHODS = ("magnitude", "wanda", "sparsegpt", "llm-barber")
PATTERNS = ("0.5", "2:4")
RANDOM = "random"


def main(arguments: list[str] | None = None) -> int:
    """Runs the command."""
    asked = _parser().parse_args(arguments)
    try:
        for method in asked.methods:
            pruner_of(method)
        bench = _bench(asked)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    made_on = setting(bench.device)
    rows: list[Row] = []
    for method in asked.methods:
        for pattern in asked.patterns:
            rows.append(time_method(bench, method, pattern, repeats=asked.repeats))
            save_rows(asked.out, rows, made_on)
            print(said(rows[-1]), file=sys.stderr)
    print(described(made_on), "", markdown(rows), sep="\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.model", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help="names or recipes")
    parser.add_argument("--patterns", nargs="+", default=list(PATTERNS))
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--n-samples", type=int, default=16)
    parser.add_argument("--seqlen", type=int, default=512)
    parser.add_argument("--calibration", default="wiki-sample", help="a corpus, a file, or `random` tokens")
    parser.add_argument("--layers", type=int, help="keep only this many decoder layers, the first ones")
    parser.add_argument("--batch-size", type=int, help="sequences per batch of the prune")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("runs/model.json"))
    return parser


def _bench(asked: argparse.Namespace) -> Bench:
    from suite.models.loading import load_model

    device = torch.device(asked.device)
    loaded = load_model(asked.model, dtype=asked.dtype, device=device)
    model = loaded.model
    if asked.layers is not None:
        keep_layers(model, asked.layers)
    placement = Placement(asked.batch_size)
    return Bench(
        stage="model",
        name=asked.model if "/" not in asked.model else Path(asked.model).name,
        model=model,
        restore=restoring(model),
        calibration=_calibration(asked, model, loaded.tokenizer),
        placement=placement,
        load=workload(model, asked.n_samples, asked.seqlen, placement),
        rates=measuring(model, asked.n_samples, asked.seqlen),
        device=device,
    )


def keep_layers(model: PreTrainedModel, n_layers: int) -> None:
    """Drops all decoder layers except the first `n_layers`."""
    layers = model.get_submodule(read_decoder(model).layers[0].name.rpartition(".")[0])
    assert isinstance(layers, torch.nn.ModuleList)
    del layers[n_layers:]
    model.config.get_text_config().num_hidden_layers = len(layers)


def _calibration(
    asked: argparse.Namespace, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None
) -> CalibrationSet:
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if asked.calibration == RANDOM:
        generator = torch.Generator().manual_seed(0)
        shape = (asked.n_samples, asked.seqlen)
        return CalibrationSet(torch.randint(vocabulary, shape, generator=generator), "random tokens", 0)
    from suite.cell import CalibrationSpec
    from suite.data.corpora import calibration_set, check_vocabulary

    spec = CalibrationSpec(source=asked.calibration, n_samples=asked.n_samples, seqlen=asked.seqlen)
    calibration = calibration_set(spec, tokenizer)
    check_vocabulary(calibration.input_ids, vocabulary, spec)
    return calibration


if __name__ == "__main__":
    sys.exit(main())
