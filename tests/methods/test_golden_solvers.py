"""ADMM, ALPS, AlphaPruning and swaps, held against the official implementations (tests/golden/solvers)."""

import json
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from methods.allocations.alphapruning import AlphaPruning, layer_ratios, spectrum, tail_exponent
from methods.base import Placement, ignore_layer
from methods.engine.layerwise import Score, prune_by_steps
from methods.engine.steps import Problem, Solution
from methods.masks.pattern import SemiStructured, Unstructured, parse_pattern
from methods.refinements.swaps import swap_rows
from methods.registry import build
from methods.scores.admm import ADMM
from methods.scores.alps import ALPSSystem, alps
from methods.updates.admm import ADMMSystem, ADMMUpdate
from tests.methods.golden import FOLDER, calibration, linears, load_model, unpacked

SOLVERS = FOLDER / "solvers"
FAMILIES = ("tiny-llama", "tiny-opt")
LEAST_WHOLE_WALK = {"admm": 0.99, "admm-gradual": 0.98, "alps": 0.95}
LEAST_LAYER_0 = {"admm": 0.995, "admm-gradual": 0.995, "alps": 0.97}
ON_EDGE = ("tiny-llama", "alps-0.7", "model.layers.0.mlp.gate_proj")
"""In fp32 this one agrees to 99.7 %: its mask hangs on the Gram matrix's seventh digit (tested below)."""


def index(family: str) -> dict:
    return json.loads((SOLVERS / family / "index.json").read_text())


RUNS = [(family, run["file"]) for family in FAMILIES for run in index(family)["runs"]]
SOLVED = [(family, file) for family, file in RUNS if file.startswith(("admm-0", "admm-2", "admm-g", "alps"))]
UPDATED = [(family, file) for family, file in RUNS if file.startswith("admm-update")]


def run_of(family: str, file: str) -> dict:
    return next(run for run in index(family)["runs"] if run["file"] == file)


def keep_of(family: str, file: str) -> dict[str, Tensor]:
    shapes = {name: linear.weight.shape for name, linear in linears(load_model(family)).items()}
    return unpacked(SOLVERS / family / f"{file}.keep.safetensors", shapes)


@cache
def layer_0(family: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Linear of layer 0 -> its weight and its Gram matrix, in float64."""
    model = load_model(family)
    grams: dict[str, Tensor] = {}
    first = {name: linear for name, linear in linears(model).items() if ".layers.0." in name}
    for name, linear in first.items():
        width = linear.in_features
        grams[name] = torch.zeros(width, width, dtype=torch.float64)

        def add(_, args, name=name):
            x = args[0].reshape(-1, args[0].shape[-1]).double()
            grams[name] += x.T @ x

        linear.register_forward_pre_hook(add)
    with torch.no_grad():
        for sequence in calibration(family).input_ids:
            model(sequence[None])
    return {name: (linear.weight.detach().double(), grams[name]) for name, linear in first.items()}


def agreement(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    same = sum(int((ours[name] == theirs[name]).sum()) for name in ours)
    return same / sum(mask.numel() for mask in ours.values())


class Rounded(Unstructured):
    """As many as ALPS's release removes: it keeps round(n (1 - s)), here and there one less than we do."""

    def for_module(self, name):
        return self

    def n_pruned(self, group):
        return group - round(group * (1 - float(self.sparsity)))


def method_of(run: dict):
    if run["method"] == "alps":
        return build("alps")
    return build("admm", {"schedule": "gradual" if run["method"] == "admm-gradual" else "released"})


@pytest.mark.parametrize(("family", "file"), SOLVED)
def test_in_float64_layer_0_gets_the_official_mask(family, file):
    run = run_of(family, file)
    pattern = parse_pattern(run["pattern"])
    ours, official = {}, keep_of(family, f"{file}.layer0-float64")
    n_held = 0
    single, stored = keep_of(family, file), load_file(SOLVERS / family / f"{file}.weights.safetensors")
    for name, (weight, gram) in layer_0(family).items():
        if run["method"] == "alps":
            n_pruned = (Rounded(pattern.sparsity) if isinstance(pattern, Unstructured) else pattern).n_pruned(
                weight.numel()
            )
            system = ALPSSystem.of(gram, 0.01)
            keep, solved = alps(weight, system, pattern, n_pruned, max_iterations=300, refit_steps=10)
        else:
            method = method_of(run)
            assert isinstance(method, ADMM)
            keep, solved = ADMMSystem.of_gram(name, gram, 0.1).solve(weight, 20, method.masks(pattern))
        ours[name] = keep
        # The official weights are those of fp32; where its mask is the same, so are they.
        if torch.equal(keep, single[name]):
            theirs = stored[name]
            distance = (solved[: len(theirs)] - theirs).norm() / theirs.norm()
            assert distance <= 1e-4, name
            n_held += 1
    assert agreement(ours, official) >= 0.9999
    assert n_held >= 3


def test_where_fp32_decides_otherwise_the_seventh_digit_of_the_gram_matrix_decides():
    family, file, name = ON_EDGE
    weight, gram = layer_0(family)[name]
    pattern = Rounded(parse_pattern("0.7").sparsity)

    def mask(gram: Tensor) -> Tensor:
        system, n_pruned = ALPSSystem.of(gram, 0.01), pattern.n_pruned(weight.numel())
        return alps(weight, system, pattern, n_pruned, max_iterations=300, refit_steps=10)[0]

    official = keep_of(family, file)[name]
    assert torch.equal(mask(gram), official)
    generator, agreements = torch.Generator().manual_seed(1), []
    for _ in range(6):
        noise = torch.randn(gram.shape, dtype=torch.float64, generator=generator)
        disturbed = mask(gram * (1 + 3e-7 * (noise + noise.T) / 2))
        agreements.append(float((disturbed == official).double().mean()))
    assert min(agreements) < 0.998


@dataclass(frozen=True)
class Inputs:
    """What a walk left behind: masks, weights, and the divergence from the dense model."""

    keep: dict[str, Tensor]
    weights: dict[str, Tensor]
    kl_to_dense: float


def pruned(family: str, prune) -> Inputs:
    model, dense = load_model(family), load_model(family)
    result = prune(model)
    keep = {name.removesuffix(".weight"): mask.unpack() for name, mask in result.keep.items()}
    weights = {name: linear.weight.detach() for name, linear in linears(model).items()}
    ids = calibration(family).input_ids[:4]
    with torch.no_grad():
        reference, ours = (m(ids).logits.log_softmax(-1) for m in (dense, model))
    kl = float((reference.exp() * (reference - ours)).sum(-1).mean())
    return Inputs(keep, weights, kl)


def relative_error(weight: Tensor, pruned_weight: Tensor, gram: Tensor) -> float:
    """||X W^T - X W'^T||^2 / ||X W^T||^2."""
    removed = weight - pruned_weight.double()
    return float((removed @ gram * removed).sum() / (weight @ gram * weight).sum())


@pytest.mark.parametrize(("family", "file"), SOLVED)
def test_a_walk_in_fp32_decides_what_the_official_one_decides(family, file):
    run = run_of(family, file)
    method, pattern = method_of(run), parse_pattern(run["pattern"])
    if run["method"] == "alps" and isinstance(pattern, Unstructured):
        pattern = Rounded(pattern.sparsity)
    ours = pruned(
        family,
        lambda model: method.prune(model, pattern, calibration(family), placement=Placement(batch_size=1)),
    )
    official = keep_of(family, file)
    assert agreement(ours.keep, official) >= LEAST_WHOLE_WALK[run["method"]]
    for name, (weight, gram) in layer_0(family).items():
        changed = run["layer0_float64"][name]["mask_entries_changed"]
        same = float((ours.keep[name] == official[name]).float().mean())
        firm = changed == 0 and (family, file, name) != ON_EDGE
        on_edge = 0.996 if (family, file, name) == ON_EDGE else LEAST_LAYER_0[run["method"]]
        assert same >= (0.999 if firm else on_edge), name
        error = relative_error(weight, ours.weights[name], gram)
        assert error == pytest.approx(run["layer0_rel_error"][name], rel=0.005), name
    assert ours.kl_to_dense == pytest.approx(run["kl_to_dense"], rel=0.02)


@dataclass(frozen=True)
class Official(Score):
    """The mask of another run of the official code."""

    keep: dict[str, Tensor]

    name = "official"
    version = 1

    def comparison_group(self, shape, pattern):
        return shape

    def choose(self, problem: Problem) -> Solution:
        return Solution(self.keep[problem.name])


@pytest.mark.parametrize(("family", "file"), UPDATED)
def test_the_update_of_a_given_mask_gives_the_official_weights(family, file):
    run = run_of(family, file)
    shapes = {name: linear.weight.shape for name, linear in linears(load_model(family)).items()}
    mask = unpacked(FOLDER / family / f"{run['init']}.keep.safetensors", shapes)
    ours = pruned(
        family,
        lambda model: prune_by_steps(
            "official",
            [Official(mask), ADMMUpdate()],
            model,
            parse_pattern(run["pattern"]),
            calibration(family),
            placement=Placement(batch_size=1),
            on_layer=ignore_layer,
        ),
    )
    assert agreement(ours.keep, mask) == 1
    stored = load_file(SOLVERS / family / f"{file}.weights.safetensors")
    assert stored
    for name, theirs in stored.items():
        weight = ours.weights[name]
        assert torch.equal(weight == 0, ~mask[name])
        assert (weight[: len(theirs)] - theirs).norm() / theirs.norm() <= 1e-4, name
    for name, (weight, gram) in layer_0(family).items():
        error = relative_error(weight, ours.weights[name], gram)
        assert error == pytest.approx(run["layer0_rel_error"][name], rel=0.005)
    assert ours.kl_to_dense == pytest.approx(run["kl_to_dense"], rel=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_exact_swaps_are_the_best_of_all_pairs(family):
    run = run_of(family, "swaps25-wanda-0.5")
    shapes = {name: linear.weight.shape for name, linear in linears(load_model(family)).items()}
    start = unpacked(FOLDER / family / "wanda-0.5.keep.safetensors", shapes)
    official = keep_of(family, "swaps25-wanda-0.5")
    for name, theirs in official.items():
        weight, gram = layer_0(family)[name]

        def error(keep: Tensor, weight: Tensor = weight, gram: Tensor = gram) -> float:
            removed = weight.masked_fill(keep, 0)
            return float((removed @ gram * removed).sum())

        expected = run["linears"][name]
        assert error(start[name]) == pytest.approx(expected["error_before"], rel=1e-6)
        for n_swaps in (1, 5, 25):
            keep = swap_rows(weight, start[name], gram, max_swaps=n_swaps, search="exact")
            assert error(keep) == pytest.approx(expected[f"error_after_{n_swaps}"], rel=1e-6)
        assert float((keep == theirs).double().mean()) >= 0.999
        single = swap_rows(weight.float(), start[name], gram.float(), max_swaps=25, search="exact")
        assert float((single == theirs).double().mean()) >= 0.999
        cheap = swap_rows(weight, start[name], gram, max_swaps=25, search="alternating")
        won = error(start[name]) - error(keep)
        assert error(start[name]) - error(cheap) >= 0.9 * won


@pytest.mark.parametrize("family", [*FAMILIES, "alpha-deep"])
def test_alphas_and_ratios_are_the_official_ones(family):
    official = json.loads((SOLVERS / family / "alpha.json").read_text())
    model = (
        load_model(family)
        if family in FAMILIES
        else AutoModelForCausalLM.from_pretrained(SOLVERS / family / "model", dtype=torch.float32)
    )
    weights = {name: linear.weight.detach() for name, linear in linears(model).items()}
    for name, alpha in official["alpha"].items():
        assert tail_exponent(spectrum(weights[name]), "released") == pytest.approx(alpha, rel=1e-4), name
    for run in official["ratios"]:
        method = AlphaPruning(max_deviation=run["epsilon"])
        pattern = parse_pattern(repr(run["sparsity"]))
        allocated = method.allocate(model, pattern, None)
        for number, ratio in enumerate(run["per_layer"]):
            of_layer = [n for n in allocated.of_module if f".layers.{number}." in n]
            assert len(of_layer) >= 6
            for name in of_layer:
                assert float(allocated.of_module[name].sparsity) == pytest.approx(ratio, abs=1e-5)
    for run in official.get("mapping_examples", []):
        sizes = [1] * len(run["alpha_per_layer"])
        ours = layer_ratios(run["alpha_per_layer"], sizes, run["sparsity"], run["epsilon"])
        if run["per_layer"][0] is None:
            assert set(ours) == {run["sparsity"]}
        else:
            assert ours == pytest.approx(run["per_layer"], abs=1e-5)


def test_under_n_of_m_a_swap_stays_in_its_group_and_is_the_best_one():
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(5, 16, dtype=torch.float64, generator=generator)
    x = torch.randn(64, 16, dtype=torch.float64, generator=generator)
    gram = x.T @ x
    keep = torch.tensor([True, True, False, False]).repeat(5, 4)

    def error(row: int, mask: Tensor) -> float:
        removed = weight[row].masked_fill(mask, 0)
        return float(removed @ gram @ removed)

    swapped = swap_rows(weight, keep, gram, max_swaps=1, m=4, search="alternating")
    pattern = SemiStructured(2, 4)
    assert bool((swapped.reshape(5, 4, pattern.m).sum(-1) == pattern.n).all())
    for row in range(5):
        tried = []
        for leaver in range(16):
            for newcomer in range(leaver // 4 * 4, leaver // 4 * 4 + 4):
                if keep[row, leaver] and not keep[row, newcomer]:
                    mask = keep[row].clone()
                    mask[leaver], mask[newcomer] = False, True
                    tried.append(error(row, mask))
        assert error(row, swapped[row]) == pytest.approx(min([*tried, error(row, keep[row])]))


@pytest.mark.parametrize("search", ["alternating", "exact"])
def test_rows_that_keep_all_or_nothing_stay_as_they_are(search):
    weight = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    x = torch.randn(20, 8, generator=torch.Generator().manual_seed(2))
    keep = torch.stack([torch.zeros(8), torch.ones(8), torch.arange(8) % 2]).bool()
    swapped = swap_rows(weight, keep, x.T @ x, max_swaps=5, search=search)
    assert swapped.sum(1).tolist() == [0, 8, 4]
