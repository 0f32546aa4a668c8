"""`doctor MODEL` prints the structure of every family so that a person can check it."""

import re

import pytest
import torch
from torch import nn

from methods.conformance.families import FAMILIES
from methods.errors import StructureError
from methods.structure.decoder import read_decoder
from suite.models.structure import read_structure


def lines_of(family) -> list[str]:
    with torch.device("meta"):
        return list(read_structure(family.build()).lines())


@pytest.mark.parametrize("name", FAMILIES)
def test_the_targets_of_every_family_are_those_written_down_by_hand(name):
    family = FAMILIES[name]
    model = family.build()
    structure = read_structure(model)
    assert structure.sharing_unknown is None
    printed = {}
    for layer in structure.layers:
        stem = layer.name.removesuffix(f".{layer.first}")
        for index in range(layer.first, layer.last + 1):
            for target in (target for block in layer.blocks for target in block.targets):
                name = re.sub(r"\[0\.\.\d+\]$", "", f"{stem}.{index}.{target.name}")
                for expert in range(target.experts or 1):
                    key = f"{name}[{expert}]" if target.experts else f"{name}.weight"
                    printed[key] = (target.outputs, target.inputs)
    by_hand = family.matrices(dict(model.named_parameters()))
    assert printed == {name: tuple(matrix.shape) for name, matrix in by_hand.items()}
    assert structure.target_weights == sum(matrix.numel() for matrix in by_hand.values())
    not_pruned = {name for layer in structure.layers for name in layer.not_pruned}
    assert all("gate" in name or "router" in name for name in not_pruned)


def test_what_a_person_reads():
    gpt2 = FAMILIES["gpt2"]
    qwen = FAMILIES["qwen2-moe"]
    assert any(
        "attn.c_attn" in line and "64 -> 192" in line and "transposed" in line for line in lines_of(gpt2)
    )
    text = "\n".join(lines_of(qwen))
    assert "decoder layer 0: Qwen2MoeDecoderLayer" in text
    assert "decoder layer 1: Qwen2MoeDecoderLayer" in text
    assert re.search(r"mlp\.experts\.down_proj\[0\.\.3\] +16 -> 32 +4 experts", text)
    assert "never pruned: mlp.shared_expert_gate.weight [1, 32]" in text
    assert re.search(r"self_attn\.k_proj +32 -> 16 +same input as self_attn\.q_proj", text)


class LooksAtValues(nn.Module):
    def forward(self, x):
        return x if bool(x.sum() > 0) else -x


def test_a_forward_that_looks_at_values_is_printed_without_shared_inputs():
    llama = FAMILIES["llama"]
    model = llama.build()
    model.model.layers[0].input_layernorm = LooksAtValues()
    structure = read_structure(model)
    assert structure.sharing_unknown
    assert len(structure.layers[0].blocks[0].targets) == 4
    assert any(
        "cannot tell without values which targets share an input" in line for line in structure.lines()
    )


def test_what_cannot_be_read_says_what_was_found_and_what_was_expected():
    from transformers import AutoModelForCausalLM, JambaConfig, MambaConfig

    with torch.device("meta"):
        mamba = AutoModelForCausalLM.from_config(
            MambaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=1)
        )
        jamba = AutoModelForCausalLM.from_config(
            JambaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=8, use_mamba_kernels=False)
        )
    expected = (
        r"layers\.0 \(MambaBlock\): expected one attention module and an MLP; found .*mixer \(MambaMixer\)"
    )
    with pytest.raises(StructureError, match=expected):
        read_decoder(mamba)
    with pytest.raises(StructureError, match="mixes JambaAttentionDecoderLayer and JambaMambaDecoderLayer"):
        read_decoder(jamba)
