"""The contract suite itself: its families, its cases, and whether it sees which way a weight lies."""

from dataclasses import dataclass
from itertools import product

import pytest
import torch

from methods.base import LayerReport, PruneResult
from methods.conformance import (
    FAMILIES,
    HARD,
    ORDINARY,
    PATTERNS,
    Case,
    Variant,
    Verdict,
    covering,
    covering_hard,
    whole,
    whole_hard,
)
from methods.conformance.cases import any_pattern
from methods.conformance.variants import built_in_variants
from methods.masks.keep_mask import KeepMask
from methods.masks.pattern import SemiStructured, parse_pattern
from methods.scores.magnitude import Magnitude, magnitude_keep
from methods.scores.wanda import Wanda
from methods.structure.decoder import read_decoder
from methods.structure.target import Target
from tests.methods.one_case import outcome
from tests.methods.tiny_models import make_calibration

FAMILY_LIST = list(FAMILIES.values())


# --- the families


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_what_the_decoder_reads(name):
    """Two readings of one model, made independently, agree on every matrix and on which way it lies."""
    model = FAMILIES[name].build()
    written_down = FAMILIES[name].matrices(dict(model.named_parameters()))
    read = {target.mask_name: target.weight for _, _, target in read_decoder(model).targets()}
    assert written_down.keys() == read.keys()
    for mask_name, matrix in written_down.items():
        assert matrix.shape == read[mask_name].shape
        assert matrix.stride() == read[mask_name].stride()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_the_same_each_time_and_leaves_the_random_state(name):
    state = torch.get_rng_state()
    first, second = FAMILIES[name].build(), FAMILIES[name].build()
    assert torch.equal(state, torch.get_rng_state())
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
    assert bool(torch.isfinite(first(input_ids=make_calibration().input_ids).logits).all())


@pytest.mark.parametrize("name", FAMILIES)
def test_every_pattern_fits_every_family(name):
    matrices = FAMILIES[name].matrices(dict(FAMILIES[name].build().named_parameters()))
    for pattern, matrix in product(map(parse_pattern, PATTERNS), matrices.values()):
        if isinstance(pattern, SemiStructured):
            assert matrix.shape[1] % pattern.m == 0
    assert any(matrix.shape[1] % 7 for matrix in matrices.values())


def test_experts_see_tokens_but_for_the_one_that_is_to_see_none():
    seen: dict[str, dict[str, int]] = {}
    for name in ("mixtral", "qwen2-moe", "qwen3-moe", "gpt-oss"):
        result = Wanda().prune(FAMILIES[name].build(), parse_pattern("0.5"), make_calibration())
        seen[name] = {r.module: r.n_tokens for r in result.layers if "experts.down_proj" in r.module}
    starved = {module for tokens in seen.values() for module, n in tokens.items() if n == 0}
    assert starved == {f"model.layers.{layer}.mlp.experts.down_proj[4]" for layer in (0, 1)}
    assert all(n >= 10 for tokens in seen.values() for module, n in tokens.items() if module not in starved)


# --- the cases


def pairs_of(cases: list[Case]) -> tuple[set[tuple[str, ...]], ...]:
    return (
        {(case.label, case.pattern) for case in cases},
        {(case.label, case.family.name) for case in cases},
        {(case.pattern, case.family.name) for case in cases},
    )


def unstructured(pattern: str) -> bool:
    return ":" not in pattern


def some_variants(n: int, n_unstructured: int = 0) -> list[Variant]:
    able = [unstructured] * n_unstructured + [any_pattern] * (n - n_unstructured)
    return [Variant(Magnitude(), f"variant {i}", can) for i, can in enumerate(able)]


@pytest.mark.parametrize("n_families", [1, 3, 7, len(FAMILIES)])
@pytest.mark.parametrize(("n", "n_unstructured"), [(1, 0), (1, 1), (2, 1), (7, 3), (14, 7), (30, 12)])
def test_all_pairs_are_covered(n, n_unstructured, n_families):
    variants, families = some_variants(n, n_unstructured), FAMILY_LIST[:n_families]
    cases = covering(variants, families)
    everything = whole(variants, families)
    by_pattern, by_family, crossed = pairs_of(everything)
    pruned = [case for case in cases if variants[int(case.label.split()[1])].can(case.pattern)]
    assert pairs_of(cases)[0] == by_pattern
    assert pairs_of(pruned)[1] == by_family
    if n_unstructured < n:
        assert pairs_of(pruned)[2] == crossed


@pytest.mark.parametrize("n", [1, 4, 30])
def test_all_hard_pairs_are_covered(n):
    cases = covering_hard(some_variants(n), FAMILY_LIST)
    met = {(case.label, case.situation.name) for case in cases}
    assert met == {(f"variant {i}", situation.name) for i in range(n) for situation in HARD}
    assert {(case.situation.name, case.family.name) for case in cases} == {
        (situation.name, family) for situation in HARD for family in FAMILIES
    }


def test_the_built_in_part_is_a_part_and_meets_every_situation():
    variants = built_in_variants()
    cases, everything = covering(variants, FAMILY_LIST), whole(variants, FAMILY_LIST)
    assert len(everything) == len(variants) * len(PATTERNS) * len(FAMILIES)
    assert len(whole_hard(variants, FAMILY_LIST)) == len(variants) * len(HARD) * len(FAMILIES)
    assert len({case.name for case in everything}) == len(everything)
    assert 3 * len(cases) < len(everything)
    for met in ("label", "pattern"):
        assert {(getattr(c, met), c.situation.name) for c in cases} == {
            (getattr(c, met), s.name) for c in everything for s in ORDINARY
        }
    assert {(c.family.name, c.situation.name) for c in cases} == {
        (family, s.name) for family in FAMILIES for s in ORDINARY
    }


# --- the wrong dimension


@dataclass(frozen=True)
class ByRows(Magnitude):
    """Magnitude by rows, so that groups have a direction; or by rows of what is stored, whatever it is."""

    as_stored: bool = False

    def comparison_group(self, shape, pattern):
        return (1, shape[1])

    def prune(self, model, pattern, calibration=None, *, on_layer, **kwargs):
        keep, reports = {}, []
        for layer, block, target in read_decoder(model).targets():
            matrix = target.stored if self.as_stored else target.weight
            mask = by_rows(matrix, pattern.for_module(target.name))
            matrix.masked_fill_(~mask, 0)
            packed = KeepMask.pack(mask) if self.as_stored else target.pack(mask)
            keep[target.mask_name] = packed
            n_pruned = packed.numel - packed.n_kept
            reports.append(LayerReport(target.name, layer.index, block.kind, target.shape, n_pruned))
            on_layer(reports[-1])
        return PruneResult(keep, tuple(reports), {})


def by_rows(weight, pattern):
    if isinstance(pattern, SemiStructured):
        return magnitude_keep(weight, pattern)
    return torch.cat([magnitude_keep(row[None], pattern) for row in weight])


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(
    ("family", "first"), [("gpt2", "h.0.attn.c_attn.weight"), ("gpt-oss", "gate_up_proj[0]")]
)
def test_a_transposed_weight_pruned_along_the_wrong_dimension_is_found(family, first, pattern):
    assert outcome(ByRows(), family, pattern).verdict is Verdict.KEPT
    found = outcome(ByRows(as_stored=True), family, pattern)
    assert found.verdict is Verdict.BROKEN
    assert found.broken.promise == 2
    assert f"{first}: of 1 outputs x " in found.reason
    assert "a model stores it transposed, target.weight and target.pack transpose it" in found.reason
    assert outcome(ByRows(as_stored=True), "llama", pattern).verdict is Verdict.KEPT


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_reader_that_takes_a_weight_for_its_transpose_is_found(monkeypatch, pattern):
    """Method, masks and contract all believe the reader; the family knows better."""
    monkeypatch.setattr(Target, "turned", lambda self, matrix: matrix)
    found = outcome(ByRows(), "gpt2", pattern)
    assert found.verdict is Verdict.BROKEN
    assert found.broken.promise == 2


@dataclass(frozen=True)
class TransposedMask(Wanda):
    """Prunes as it should, and then lays the masks of square weights the other way."""

    def prune(self, model, pattern, calibration, **kwargs):
        dense = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        result = super().prune(model, pattern, calibration, **kwargs)
        keep = dict(result.keep)
        for name, mask in result.keep.items():
            if name.endswith("attn.c_proj.weight"):
                turned = mask.unpack().T
                keep[name] = KeepMask.pack(turned.contiguous())
                model.get_parameter(name).data.copy_(dense[name] * turned)
        return PruneResult(keep, result.layers, result.phases)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_transposed_mask_of_a_square_weight_is_found(pattern):
    found = outcome(TransposedMask(), "gpt2", pattern)
    assert found.verdict is Verdict.BROKEN
    assert found.broken.promise == 2
    assert "transformer.h.0.attn.c_proj.weight: of 1 outputs x " in found.reason
