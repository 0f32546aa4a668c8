"""prunebench check-method: what it takes, what it says, and its exit codes."""

import importlib
import io
import json
import re
import sys

import pytest
from rich.console import Console

from methods.conformance import FAMILIES, HARD, ORDINARY, PATTERNS
from methods.registry import build
from suite.commands.output.method_check import run_with_bar
from suite.inspection.method_check import cases_of
from tests.suite.conftest import refusal

DRAFT = '''
from dataclasses import dataclass
from typing import ClassVar

from methods import InputError
from methods import LayerReport, PruneResult
from methods import SemiStructured, require_finite
from methods import read_decoder, with_calibration
from methods.scores.magnitude import magnitude_keep


@dataclass(frozen=True)
class Draft:
    """Magnitude, written anew."""

    power: float = 1.0

    name: ClassVar[str] = "draft"
    version: ClassVar[int] = 1
    needs_calibration: ClassVar[bool] = False
    reconstructs: ClassVar[bool] = False

    def __post_init__(self):
        if self.power <= 0:
            raise InputError("method 'draft': power must be above 0")

    def comparison_group(self, shape, pattern):
        return shape

    def prune(self, model, pattern, calibration, *, placement, on_layer):
        decoder = read_decoder(model)
        decoder.check_pattern(pattern)
        keep, reports = {}, []
        for layer, block, target in decoder.targets():
            require_finite(target.weight, target.name, "its weights")
            mask = magnitude_keep(target.weight, pattern.for_module(target.name))
            target.write(target.weight, mask)
            packed = keep[target.mask_name] = target.pack(mask)
            n_pruned = packed.numel - packed.n_kept
            reports.append(LayerReport(target.name, layer.index, block.kind, target.shape, n_pruned))
            on_layer(reports[-1])
        return PruneResult(keep, tuple(reports), {})
'''
ONE_FAMILY = ("--family", "llama")


@pytest.fixture
def draft(tmp_path, monkeypatch):
    """Writes a module into the current folder; gives its name. What was imported is forgotten afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    written = []

    def write(text: str = DRAFT, name: str = "my_draft") -> str:
        (tmp_path / f"{name}.py").write_text(text)
        written.append(name)
        sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return name

    yield write
    for name in written:
        sys.modules.pop(name, None)


def test_a_method_that_keeps_its_promises(prunebench, draft):
    draft()
    code, out, err = prunebench("check-method", "my_draft:Draft", *ONE_FAMILY, "--set", "power=2")
    assert code == 0, out
    assert err == ""
    heading, row, *_ = out.splitlines()
    assert heading.split() == ["family", *PATTERNS]
    assert row.split() == ["llama", *["ok"] * len(PATTERNS)]
    n_cases = len(PATTERNS) + len(HARD)
    assert out.splitlines()[-1] == f"draft: {n_cases} kept, 0 refused, 0 broken. Every promise is kept."


def test_a_registered_name_is_enough(prunebench):
    code, out, _ = prunebench("check-method", "sparsegpt", *ONE_FAMILY, "--set", "block_size=32")
    assert code == 0, out
    assert out.splitlines()[-1].startswith("sparsegpt: ")


def test_a_broken_promise_is_a_sentence_and_exit_code_1(prunebench, draft):
    draft(DRAFT.replace('require_finite(target.weight, target.name, "its weights")', "pass"))
    code, out, err = prunebench("check-method", "my_draft:Draft", *ONE_FAMILY)
    assert code == 1
    assert err == ""
    (sentence,) = [line for line in out.splitlines() if line.startswith("BROKEN")]
    assert sentence.startswith(
        "BROKEN, 2 cases on llama: promise 5 (hard input has a defined outcome): llama at"
    )
    assert "nan-weight (one weight is NaN): prune() raised no error. Call methods.require_finite" in sentence


def test_an_exception_inside_the_method_is_a_sentence_with_its_place(prunebench, draft):
    text = DRAFT.replace("packed.numel - packed.n_kept", "packed.n_pruned")
    line = text[: text.index("packed.n_pruned")].count("\n") + 1
    draft(text)
    code, out, err = prunebench("check-method", "my_draft:Draft", *ONE_FAMILY)
    assert code == 1
    assert "Traceback" not in out + err
    (sentence,) = [line for line in out.splitlines() if line.startswith("BROKEN")]
    assert "prune() raised AttributeError: 'KeepMask' object has no attribute 'n_pruned'" in sentence
    assert f"(my_draft.py, line {line}, in prune: n_pruned = packed.n_pruned)" in sentence
    assert "BROKEN   BROKEN" in out


def test_what_a_method_cannot_do_is_shown_and_no_fault(prunebench, draft):
    refusing = (
        "if isinstance(pattern, SemiStructured):\n"
        "            raise InputError(f\"method 'draft': no pattern {pattern}, give a sparsity\")\n        "
    )
    draft(DRAFT.replace("decoder = read_decoder", f"{refusing}decoder = read_decoder"))
    code, out, _ = prunebench("check-method", "my_draft:Draft", *ONE_FAMILY)
    assert code == 0, out
    assert out.splitlines()[1].split() == ["llama", *["ok"] * 4, *["refused"] * 3]
    assert "refused, 1 case on llama: method 'draft': no pattern 2:4, give a sparsity" in out


def test_a_method_that_refuses_everything_shows_nothing(prunebench, draft):
    draft(
        DRAFT.replace(
            "decoder = read_decoder", 'raise InputError("not today")\n        decoder = read_decoder'
        )
    )
    code, out, _ = prunebench("check-method", "my_draft:Draft", *ONE_FAMILY)
    assert code == 1
    assert out.splitlines()[-1].endswith("Nothing was pruned: every ordinary case was refused.")


def test_a_method_may_reconstruct_need_calibration_and_have_no_group(prunebench, draft):
    draft(
        DRAFT.replace("needs_calibration: ClassVar[bool] = False", "needs_calibration: ClassVar[bool] = True")
        .replace("reconstructs: ClassVar[bool] = False", "reconstructs: ClassVar[bool] = True")
        .replace("        return shape", "        return None")
        .replace(
            "decoder = read_decoder",
            "with_calibration(self.name, calibration)\n        decoder = read_decoder",
        )
        .replace(
            "target.write(target.weight, mask)",
            "target.write(target.weight * (2 if pattern.target else 1), mask)",
        )
    )
    code, out, _ = prunebench("check-method", "my_draft:Draft", *ONE_FAMILY)
    # It never looks at the activations that are infinite, though it says that it needs calibration.
    assert [line.split(")")[0] for line in out.splitlines() if line.startswith("BROKEN")] == [
        "BROKEN, 1 case on llama: promise 5 (hard input has a defined outcome"
    ]
    assert "infinite-activation" in out
    assert code == 1


def test_programs_read_json(prunebench, draft):
    draft(DRAFT.replace("        return shape", "        return (1, shape[1])"))
    code, out, err = prunebench("check-method", "my_draft:Draft", *ONE_FAMILY, "--json")
    assert (code, err) == (1, "")
    found = json.loads(out)
    assert found["method"] == "draft"
    assert found["holds"] is False
    assert found["kept"] + found["refused"] + found["broken"] == len(found["cases"])
    first = found["cases"][0]
    assert (first["family"], first["pattern"], first["situation"]) == ("llama", "0.3", "fp32")
    assert (first["verdict"], first["promise"]) == ("broken", 2)
    assert "of 1 outputs x 64 inputs" in first["reason"]


@pytest.mark.parametrize(
    ("spec", "changed", "message"),
    [
        ("no_such:Draft", ("", ""), "no module 'no_such' in "),
        ("my_draft.deeper:Draft", ("", ""), "no module|cannot be imported"),
        ("my_draft.py:Draft", ("", ""), "write it as module:Class, such as my_draft:Draft"),
        ("my_draft:", ("", ""), "write it as module:Class"),
        (":Draft", ("", ""), "write it as module:Class"),
        ("my_draft:Draught", ("", ""), "my_draft has no class 'Draught'; did you mean 'Draft'"),
        ("my_draft:dataclass", ("", ""), "is of type function, not a class"),
        ("wandda", ("", ""), "unknown method 'wandda'; did you mean 'wanda'"),
        (
            "my_draft:Draft",
            ("from methods.scores.magnitude", "from no_such_package"),
            "my_draft imports 'no_such_package'",
        ),
        (
            "my_draft:Draft",
            ("@dataclass", "1 / 0\n@dataclass"),
            r"ZeroDivisionError: .*\(my_draft.py, line 12\)",
        ),
        ("my_draft:Draft", ("class Draft:", "class Draft"), "SyntaxError"),
        ("my_draft:Draft", ("    name:", "    title:"), r"lacks 'name' \(str\)"),
        ("my_draft:Draft", ("    version: ClassVar[int] = 1\n", ""), r"lacks 'version' \(int\)"),
        ("my_draft:Draft", ("= False\n    recon", '= "no"\n    recon'), "needs_calibration is 'no'; .* bool"),
        (
            "my_draft:Draft",
            ("    reconstructs:", "    rebuilds:"),
            r"lacks 'reconstructs' \(bool or property\)",
        ),
        ("my_draft:Draft", ("def comparison_group", "def group"), r"lacks comparison_group\(\)"),
        ("my_draft:Draft", ("def prune", "def sparsify"), r"lacks prune\(\)"),
        (
            "my_draft:Draft",
            ("@dataclass(frozen=True)", "@dataclass"),
            "is not a frozen dataclass: write @dataclass",
        ),
        (
            "my_draft:Draft",
            (", *, placement, on_layer", ""),
            "prune.* unexpected keyword argument 'placement'",
        ),
        (
            "my_draft:Draft",
            ("(self, shape, pattern)", "(self, shape)"),
            "comparison_group.*too many positional",
        ),
        (
            "my_draft:Draft",
            ("if self.power <= 0", "if self.strength <= 0"),
            "cannot be built: AttributeError",
        ),
    ],
    ids=str,
)
def test_a_method_that_cannot_be_loaded_gets_one_line(prunebench, draft, spec, changed, message):
    text = DRAFT.replace(*changed) if changed[0] else DRAFT
    assert (text != DRAFT) == bool(changed[0])
    draft(text)
    line = refusal(prunebench("check-method", spec, *ONE_FAMILY))
    assert re.search(message, line), line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "pwer=2"), "has no setting 'pwer'; did you mean 'power'"),
        (("--set", "power=big"), "setting power cannot be 'big'; it takes a finite number"),
        (("--set", "power=-1"), "power must be above 0"),
        (("--set", "power"), "write it as key=value"),
        (("--family", "lama"), "unknown family 'lama'; did you mean 'llama"),
    ],
    ids=str,
)
def test_wrong_arguments_get_one_line(prunebench, draft, arguments, message):
    draft()
    assert message in refusal(prunebench("check-method", "my_draft:Draft", *arguments))


def test_one_method_meets_every_pattern_on_every_family_and_all_situations_with_whole():
    cases = cases_of(build("magnitude"))
    assert {(c.family.name, c.pattern) for c in cases if c.situation in ORDINARY} == {
        (family, pattern) for family in FAMILIES for pattern in PATTERNS
    }
    assert {(c.family.name, c.situation.name) for c in cases if c.situation in HARD} == {
        (family, situation.name) for family in FAMILIES for situation in HARD
    }
    more = cases_of(build("magnitude"), ["gpt2"], everything=True)
    assert {(c.pattern, c.situation.name) for c in more if c.situation in ORDINARY} == {
        (pattern, situation.name) for pattern in PATTERNS for situation in ORDINARY
    }


def test_progress_is_drawn_on_a_terminal_only():
    method = build("magnitude")
    cases = cases_of(method, ["llama"])[:3]
    for terminal in (True, False):
        console = Console(force_terminal=terminal, width=100, record=True, file=io.StringIO())
        assert run_with_bar("magnitude", cases, console).holds
        assert bool(console.export_text()) is terminal
