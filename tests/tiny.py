"""A model and a tokenizer small enough to be made anew for every test."""

import json
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from methods.structure.forward_override import replaced_forward


def tiny_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({symbol: index for index, symbol in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def leading_tokenizer(n_first: int = 1) -> PreTrainedTokenizerFast:
    """One token a byte, and before every text as many copies of token 256 as wanted."""
    backend = byte_tokenizer().backend_tokenizer
    backend.add_special_tokens(["<s>"])
    backend.post_processor = TemplateProcessing(
        single=" ".join(["<s>"] * n_first + ["$A"]), special_tokens=[("<s>", backend.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>")


def model_that_needs_its_first_token() -> LlamaForCausalLM:
    """A model that knows nothing without token 256, and with it that text is made of the letters a and b.

    Every other token is embedded as 0, so that without token 256 all 257 tokens are equally likely:
    perplexity 257. Attention spreads what token 256 carries over all that comes after it, and the head turns
    that into equal logits of the two letters, far above all others: perplexity 2.
    """
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=257,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            tie_word_embeddings=False,
        )
    )
    letters = byte_tokenizer()("ab")["input_ids"]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("proj.weight"):
                parameter.mul_(1e-4)  # no zeros, which would be taken for pruned
        model.model.embed_tokens.weight.zero_()[256, 0] = 1.0
        attention = model.model.layers[0].self_attn
        attention.v_proj.weight[0, 0] = attention.o_proj.weight[1, 0] = 1.0
        model.lm_head.weight.zero_()[:, 1] = -5.0
        model.lm_head.weight[letters, 1] = 5.0
    return model


def save_tiny_model(folder: Path) -> Path:
    """A folder that holds the tiny model with its tokenizer."""
    tiny_model().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def write_text(path: Path, n_words: int = 600) -> Path:
    """A text file of random words, five bytes each with its blank."""
    words = random.Random(5).choices(["tree", "lamp", "rain", "book", "moon", "fish"], k=n_words)
    path.write_text(" ".join(words))
    return path


def short_of_memory(module, n_rows: int, failed: list[int] | None = None):
    """While the body runs, the module's forward has memory for `n_rows` sequences only."""
    forward = module.forward

    def call(*args, **kwargs):
        n = len(args[0] if args else kwargs["input_ids"])
        if n > n_rows:
            if failed is not None:
                failed.append(n)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*args, **kwargs)

    return replaced_forward(module, call)


def write_task(folder: Path, name: str = "mine", n_items: int = 6) -> Path:
    """A folder with an lm-eval task of the user's own: three choices of equal length."""
    folder.mkdir(exist_ok=True)
    words = ["tree", "lamp", "rain", "book", "moon", "fish"]
    rows = [
        {
            "question": f"{words[number % 6]} {number} is",
            "choices": [words[(number + step) % 6] for step in range(3)],
            "answer": number % 3,
        }
        for number in range(n_items)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics = "".join(
        f"  - metric: {metric}\n    aggregation: mean\n    higher_is_better: true\n"
        for metric in ("acc", "acc_norm")
    )
    (folder / f"{name}.yaml").write_text(
        f"""task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    train: {folder}/rows.jsonl
    test: {folder}/rows.jsonl
test_split: test
fewshot_split: train
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: answer
metric_list:
{metrics}metadata:
  version: 3.0
"""
    )
    return folder


def write_suite(folder: Path, methods: str = "magnitude wanda sparsegpt", **changes: object) -> Path:
    """A suite file over the tiny model and a text in `folder`; it runs in seconds."""
    save_tiny_model(folder / "model")
    text = write_text(folder / "text.txt")
    n_samples = changes.get("n_samples", 4)
    patterns = changes.get("patterns", ["0.5", "2:4"])
    tables = "".join(f'[[methods]]\nname = "{name}"\n' for name in methods.split())
    path = folder / "tiny.toml"
    path.write_text(
        f"""name = "tiny"
description = "Does the harness run?"
models = ["{folder / "model"}"]
patterns = {patterns}
dtype = "float32"
{tables}
[calibration]
source = "{text}"
n_samples = {n_samples}
seqlen = 32
[[perplexity]]
corpus = "{text}"
seqlen = 32
max_tokens = 640
"""
    )
    return path


def write_measured_suite(folder: Path, methods: str, more: str = "", threads: int | None = None) -> Path:
    """A suite that measures all there is, on the tiny model at 0.5, with tables of `more` methods."""
    path = write_suite(folder, methods=methods, patterns=["0.5"])
    tasks = write_task(folder / "tasks")
    (folder / "prompts.jsonl").write_text('{"prompt": "the tree"}\n{"prompt": "rain and moon"}\n')
    fixed = "" if threads is None else f"threads = {threads}"
    path.write_text(
        f"""divergence = true
{fixed}
{path.read_text()}
{more}
[[tasks]]
name = "mine"
folder = "{tasks}"
[answers]
prompts = "{folder}/prompts.jsonl"
max_new_tokens = 4
[speed]
prompt_tokens = 8
new_tokens = 2
"""
    )
    return path
