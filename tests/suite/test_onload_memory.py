"""With `--placement onload` a model is pruned, and measured, by a process that may not hold its weights."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from methods.placement.tensor_files import TensorFiles
from suite.results import ResultStore
from suite.results.records.pruning_file import read_pruning
from tests import PATIENCE_S
from tests.tiny import byte_tokenizer, write_text

ROOT = Path(__file__).parents[2]
N_LAYERS = 16
MIB = 2**20
N_BYTES = 288 * MIB
"""Of the weights, at least, in the 16 bits they are stored in; a run of `SUITE` has them in 32."""
MEASURING = 384 * MIB
"""What such a run may take: two thirds of the weights."""

UNDER_A_LIMIT = """
import resource, sys
from suite.cli import main
from methods import base
from suite.evaluation.speed import reference_speed as efficiency

# The machine's reference speed is of no interest here, and would take most of the time.
efficiency.SEQLEN, efficiency.MATRIX_SIZE, base.HOST_TOKENS = 16, 64, 32

def prunebench(model):
    sys.argv = ["prunebench", *(word.replace("MODEL", model) for word in arguments)]
    try:
        main()
    except SystemExit as ended:
        return ended.code or 0

allowance, *arguments = sys.argv[1:]
# What is imported on the way is there before the limit is.
assert prunebench("small") == 0
now = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmData"))
limit = now + int(allowance)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
sys.exit(prunebench("large"))
"""
SUITE = """
name = "limited"
models = ["MODEL"]
patterns = ["0.5"]
dtype = "float32"
threads = 1
divergence = true
[calibration]
source = "ids.safetensors"
n_samples = 2
seqlen = 16
[[methods]]
name = "llm-barber"
settings = { initial = "magnitude", score = "weight" }
[[perplexity]]
corpus = "text.txt"
seqlen = 32
max_tokens = 320
[[tasks]]
name = "offline_agreement"
limit = 10
"""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds a large model, whose layers are alike, a small one and token ids."""
    folder = tmp_path_factory.mktemp("onload")
    widths = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 8, "vocab_size": 256}
    torch.manual_seed(0)
    small = LlamaForCausalLM(LlamaConfig(num_hidden_layers=1, **widths)).to(torch.bfloat16)
    small.save_pretrained(folder / "small")
    LlamaConfig(num_hidden_layers=N_LAYERS, **widths).save_pretrained(folder / "large")
    shard_of = {}
    for index in range(N_LAYERS):
        named = {
            name.replace("layers.0", f"layers.{index}"): tensor.contiguous()
            for name, tensor in small.state_dict().items()
            if "layers.0" in name or index == 0
        }
        save_file(named, folder / "large" / f"model-{index}.safetensors", metadata={"format": "pt"})
        shard_of |= dict.fromkeys(named, f"model-{index}.safetensors")
    (folder / "large" / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": shard_of})
    )
    save_file({"input_ids": torch.randint(0, 256, (2, 16))}, folder / "ids.safetensors")
    write_text(folder / "text.txt")
    for model in ("small", "large"):
        byte_tokenizer().save_pretrained(folder / model)
    yield folder
    for file in folder.rglob("*.safetensors"):
        file.unlink()


def under_limit(folder, *arguments, allowance=208 * MIB):
    """Lets a process have `allowance` bytes beyond what it takes with all libraries imported.

    It runs the command on the small model first and then, with a limit, on the large one: `MODEL` is either.
    """
    return subprocess.run(
        [sys.executable, "-c", UNDER_A_LIMIT, str(allowance), *arguments],
        cwd=folder,
        env={
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "PATH": "/usr/bin:/bin",
            "PRUNEBENCH_SCRATCH": str(folder / "scratch"),
            # Freed matrices of this size would stay in the allocator's hands, scattered, and count; those of
            # a model that is too large for its machine, 32 MB and more, never do.
            "MALLOC_MMAP_THRESHOLD_": "1048576",
        },
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def prune_under_limit(folder, placement, method, *settings, **limited):
    return under_limit(
        folder,
        *("prune", "MODEL", "--placement", placement, "--method", method, "--sparsity", "0.5"),
        *("--calibration", "ids.safetensors", "--n-samples", "2", "--seqlen", "16", "--dtype", "bfloat16"),
        *("--device", "cpu", "--out", f"{placement}-{method}-MODEL", *settings),
        **limited,
    )


def run_under_limit(folder, placement, **limited):
    for model in ("small", "large"):
        (folder / f"{model}.toml").write_text(SUITE.replace("MODEL", model))
    run = ("run", "MODEL.toml", "--placement", placement, "--device", "cpu", "--out", f"{placement}-MODEL")
    return under_limit(folder, *run, **limited)


# Two passes, and every layer twice, sparse and dense; the gradients would only take time.
BARBER = ("llm-barber", "--set", "initial=magnitude", "--set", "score=weight")


@pytest.mark.parametrize("method", [("wanda",), BARBER], ids=["wanda", "llm-barber"])
def test_a_model_is_pruned_in_less_memory_than_its_weights_take(folder, method):
    weights = TensorFiles.of_folder(folder / "large").stored.values()
    assert sum(stored.n_bytes for stored in weights) > N_BYTES
    done = prune_under_limit(folder, "onload", *method)
    assert done.returncode == 0, done.stderr
    assert read_pruning(folder / f"onload-{method[0]}-large").sparsity == pytest.approx(0.5)
    files = TensorFiles.of_folder(folder / f"onload-{method[0]}-large")
    assert files.stored.keys() == TensorFiles.of_folder(folder / "large").stored.keys()
    last = files.read(f"model.layers.{N_LAYERS - 1}.mlp.up_proj.weight")
    assert int((last == 0).sum()) >= last.numel() // 2


def test_the_limit_is_real(folder):
    done = prune_under_limit(folder, "resident", "magnitude", allowance=N_BYTES)
    assert done.returncode in (2, 3), done.stderr
    assert "memory" in done.stderr.lower()
    assert not (folder / "resident-magnitude-large").exists()


def test_a_model_is_pruned_and_measured_in_less_memory_than_its_weights_take(folder):
    done = run_under_limit(folder, "onload", allowance=MEASURING)
    assert done.returncode == 0, done.stderr
    records = {s.record.cell.method: s.record for s in ResultStore(folder / "onload-large").records().records}
    assert set(records) == {"dense", "llm-barber"}
    for method, record in records.items():
        values = {metric.name: metric.value for metric in record.metrics}
        assert 1 < values["perplexity"] < 2000
        assert len(record.tasks[0].outcomes) == 10
        assert method == "dense" or (values["sparsity"] == pytest.approx(0.5) and values["kl_divergence"] > 0)


def test_to_measure_it_whole_takes_more(folder):
    done = run_under_limit(folder, "resident", allowance=MEASURING)
    assert done.returncode in (2, 3), done.stderr
    assert "memory" in done.stderr.lower()
