from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.errors import InputError
from suite.cell import Cell
from suite.evaluation.offline_tasks.catalogue import OFFLINE_TASKS
from suite.planning.method_of_cell import part_versions, parts_of
from suite.planning.suite_cells import builtin_suites, load_suite, matching, parse_suite, plan
from suite.planning.suite_file import SuiteConfig

SUITE = """\
name = "mine"
models = ["smollm2-135m"]
patterns = ["0.5", "2:4"]

[calibration]
n_samples = 8
seqlen = 64
seeds = [0, 1]

[[methods]]
name = "magnitude"

[[methods]]
name = "llm-barber"
settings = { initial = "wanda", rebuild_ratio = 0.1 }
patterns = [0.50]

[[perplexity]]
corpus = "wiki-sample"
seqlen = 64
max_tokens = 1000
"""


def read(text: str) -> SuiteConfig:
    return parse_suite(text.encode(), file="mine.toml")


def error_of(text: str) -> str:
    with pytest.raises(InputError) as caught:
        plan(read(text), dtype="float32")
    message = str(caught.value)
    assert "\n" not in message
    return message


def changed(old: str, new: str) -> str:
    assert SUITE.count(old) == 1
    return SUITE.replace(old, new)


def test_a_suite_becomes_its_cells_the_dense_one_first() -> None:
    cells = plan(read(SUITE), dtype="float32")
    assert [(c.method, c.pattern, c.calibration and c.calibration.seed) for c in cells] == [
        ("dense", None, None),
        ("magnitude", "0.5", None),
        ("magnitude", "2:4", None),
        ("llm-barber", "0.5", 0),
        ("llm-barber", "0.5", 1),
    ]
    barber = cells[-1]
    assert barber.settings["rebuild_ratio"] == 0.1
    assert barber.settings["nm_guard"] is True, "defaults are written out"
    assert barber.calibration is not None and barber.calibration.n_samples == 8
    assert [spec.protocol for spec in barber.perplexity] == ["wiki-sample-token-s64"]
    assert len({cell.digest for cell in cells}) == len(cells)


MEASURED = """
divergence = true
[answers]
max_new_tokens = 8
[speed]
new_tokens = 4
[[tasks]]
name = "offline"
limit = 7
"""


def test_what_is_measured_is_part_of_every_cell() -> None:
    head, tables = MEASURED.split("[answers]")
    cells = plan(read(head + SUITE + "[answers]" + tables), dtype="float32")
    for cell in cells:
        assert cell.divergence
        assert [task.name for task in cell.tasks] == list(OFFLINE_TASKS)
        assert {task.limit for task in cell.tasks} == {7}
        assert cell.answers is not None and cell.answers.prompts == "built-in"
        assert cell.speed is not None and cell.speed.prompt_tokens == 512
    plain = {cell.digest for cell in plan(read(SUITE), dtype="float32")}
    assert plain.isdisjoint(cell.digest for cell in cells)


def test_threads_are_part_of_a_cell_where_a_suite_fixes_them() -> None:
    free, fixed = (plan(read(text), dtype="float32") for text in (SUITE, f"threads = 2\n{SUITE}"))
    assert {cell.threads for cell in free} == {None}
    assert {cell.threads for cell in fixed} == {2}
    assert not {cell.digest for cell in free} & {cell.digest for cell in fixed}


def test_several_calibrations_make_a_cell_each() -> None:
    text = changed(
        "[calibration]\nn_samples = 8\nseqlen = 64\nseeds = [0, 1]",
        '[[calibration]]\nn_samples = 8\n[[calibration]]\nsource = "news-sample"\nseeds = [0, 3]',
    )
    found = [c.calibration for c in plan(read(text), dtype="float32") if c.method == "llm-barber"]
    assert [(c.source, c.n_samples, c.seed) for c in found if c] == [
        ("wiki-sample", 8, 0),
        ("news-sample", 128, 0),
        ("news-sample", 128, 3),
    ]
    twice = text.replace('source = "news-sample"\n', "n_samples = 8\n")
    assert "mine.toml:9: calibration[1].seeds[0]: 0 is listed twice" in error_of(twice)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            '[[tasks]]\nname = "offline_clzoe"',
            "mine.toml:23: tasks[0].name: unknown task 'offline_clzoe'; did",
        ),
        (
            '[[tasks]]\nname = "offline"\nlimits = 5',
            "mine.toml:24: tasks[0].limits: unknown key; did you mean 'li",
        ),
        (
            '[[tasks]]\nname = "offline"\nlimit = 0',
            "mine.toml:24: tasks[0].limit: must be greater than or equal",
        ),
        (
            '[[tasks]]\nname = "offline"\n[[tasks]]\nname = "offline_cloze"',
            "mine.toml:24: tasks[1]: task 'offline_cloze' is listed twice",
        ),
        (
            '[[tasks]]\nname = "mine"\nfolder = "nowhere"',
            "mine.toml:24: tasks[0].folder: task folder 'nowhere' does not exist",
        ),
        ('[answers]\nprompts = "mine.jsonl"', "mine.toml:23: answers.prompts: prompt file 'mine.jsonl'"),
        ("[answers]\nmax_new_tokens = 0", "mine.toml:23: answers.max_new_tokens: must be greater"),
        ("[speed]\nnew_token = 4", "mine.toml:23: speed.new_token: unknown key; did you mean 'new_tokens'"),
    ],
)
def test_what_cannot_be_measured_is_found_in_the_file(table: str, message: str) -> None:
    assert error_of(f"{SUITE}{table}\n").startswith(message)


def test_how_a_number_is_spelled_makes_no_other_cell() -> None:
    once = plan(read(SUITE), dtype="float32")
    again = plan(read(SUITE.replace("rebuild_ratio = 0.1", "rebuild_ratio = 1e-1")), dtype="float32")
    assert [cell.digest for cell in once] == [cell.digest for cell in again]
    whole = plan(read(SUITE.replace("rebuild_ratio = 0.1", "rebuild_ratio = 1")), dtype="float32")
    point = plan(read(SUITE.replace("rebuild_ratio = 0.1", "rebuild_ratio = 1.0")), dtype="float32")
    assert whole == point


def test_every_model_gets_its_own_dense_cell_and_its_own_options() -> None:
    text = changed(
        'models = ["smollm2-135m"]',
        'models = ["smollm2-135m", { name = "org/model", revision = "abc", trust_remote_code = true }]',
    )
    cells = plan(read(text), dtype="bfloat16")
    assert [(c.model, c.revision, c.trust_remote_code) for c in cells if c.is_dense] == [
        ("smollm2-135m", None, False),
        ("org/model", "abc", True),
    ]
    assert cells[5].is_dense and len(cells) == 10
    assert {cell.dtype for cell in cells} == {"bfloat16"}


def test_models_may_be_tables_and_methods_may_be_left_out() -> None:
    text = 'name = "m"\n[[models]]\nname = "smollm2-135m"\n[[perplexity]]\ncorpus = "wiki-sample"\n'
    (cell,) = plan(read(text), dtype="float32")
    assert cell.is_dense


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "seqlen = 64\nseeds",
            "seqlen = 64\nseed",
            "mine.toml:8: calibration.seed: unknown key; did you mean 'seeds'",
        ),
        ("models =", "model =", "mine.toml:2: model: unknown key; did you mean 'models'"),
        (
            "max_tokens",
            "max_token",
            "mine.toml:21: perplexity[0].max_token: unknown key; did you mean 'max_tokens'",
        ),
        ('name = "mine"\n', "", "mine.toml: name: is missing"),
        ('corpus = "wiki-sample"\n', "", "mine.toml:18: perplexity[0].corpus: is missing"),
        ("[0, 1]", '["0"]', "mine.toml:8: calibration.seeds[0]: must be a valid integer, not '0'"),
        ("[0, 1]", "[]", "mine.toml:8: calibration.seeds: must not be empty"),
        ("[0, 1]", "[0, 0]", "mine.toml:8: calibration.seeds[1]: 0 is listed twice"),
        ("[0, 1]", "[-1]", "mine.toml:8: calibration.seeds[0]: must be greater than or equal to 0, not -1"),
        ("[0, 1]", "0", "mine.toml:8: calibration.seeds: must be an array"),
        (
            "n_samples = 8",
            "n_samples = true",
            "mine.toml:6: calibration.n_samples: must be a valid integer, not true",
        ),
        (
            "n_samples = 8",
            "n_samples = 0",
            "mine.toml:6: calibration.n_samples: must be greater than or equal to 1",
        ),
        (
            "64\nseeds",
            "1000000\nseeds",
            "mine.toml:7: calibration.seqlen: must be less than or equal to 131072",
        ),
        ('["smollm2-135m"]', "[]", "mine.toml:2: models: must not be empty"),
        ('["smollm2-135m"]', "[3]", "mine.toml:2: models[0]: must be a table"),
        ('["smollm2-135m"]', '["smolm2-135m"]', "mine.toml:2: models[0].name: unknown model 'smolm2-135m'"),
        (
            '["smollm2-135m"]',
            '["smollm2-135m",\n"smollm2-135m"]',
            "mine.toml:3: models[1]: 'smollm2-135m' is listed twice",
        ),
        (
            '["smollm2-135m"]',
            '[{name = "smollm2-135m", revision = "x"}]',
            "mine.toml:2: models[0].revision: a built-in model has none",
        ),
        (
            '"magnitude"',
            '"magnitud"',
            "mine.toml:11: methods[0].name: unknown method 'magnitud'; did you mean 'magn",
        ),
        ('"magnitude"', '"dense"', "mine.toml:11: methods[0].name: the dense model is always measured"),
        (
            "rebuild_ratio = 0.1",
            "rebuild_ratoi = 0.1",
            "mine.toml:15: methods[1].settings.rebuild_ratoi: method 'llm-barber' has no setting",
        ),
        (
            "= 0.1 }",
            "= 2 }",
            "mine.toml:15: methods[1].settings.rebuild_ratio: method 'llm-barber': rebuild_ratio 2",
        ),
        (
            "= 0.1 }",
            "= [1] }",
            "mine.toml:15: methods[1].settings.rebuild_ratio: must be true or false, a finite",
        ),
        (
            "= 0.1 }",
            "= nan }",
            "mine.toml:15: methods[1].settings.rebuild_ratio: must be true or false, a finite",
        ),
        (
            'initial = "wanda"',
            'initial = "vanda"',
            "mine.toml:15: methods[1].settings.initial: unknown method 'vanda'",
        ),
        ('["0.5", "2:4"]', '["0.5",\n"4:2"]', "mine.toml:4: patterns[1]: pattern 4:2"),
        ('["0.5", "2:4"]', "[1.5]", "mine.toml:3: patterns[0]: sparsity 1.5 is outside [0, 1)"),
        ('["0.5", "2:4"]', "[0.5, '0.50']", "mine.toml:3: patterns[1]: 0.5 is listed twice"),
        ('["0.5", "2:4"]', "[true]", "mine.toml:3: patterns[0]: must be a sparsity such as 0.5 or a pattern"),
        (
            'patterns = ["0.5", "2:4"]',
            "",
            "mine.toml:10: methods[0].patterns: is missing, and the suite has none",
        ),
        (
            'name = "magnitude"',
            'name = "magnitude"\n[[methods]]\nname = "magnitude"',
            "mine.toml:12: methods[1]: repeats",
        ),
        (
            '"wiki-sample"',
            '"wiki-sampel"',
            "mine.toml:19: perplexity[0].corpus: unknown corpus 'wiki-sampel'",
        ),
        ("n_samples = 8", 'source = "news"', "mine.toml:6: calibration.source: unknown corpus 'news'"),
        (
            "max_tokens = 1000",
            "max_tokens = 10",
            "mine.toml:21: perplexity[0].max_tokens: 10 tokens do not fill one",
        ),
        (
            "max_tokens = 1000",
            '[[perplexity]]\ncorpus = "wiki-sample"\nseqlen = 64',
            "mine.toml:21: perplexity[1]: protocol wiki-sample-token-s64 is listed twice",
        ),
        ("[calibration]", "[calibration", "mine.toml:5: is not TOML: "),
        ('name = "mine"', "name = mine", "mine.toml:1: is not TOML: Invalid value (column 8)"),
        ('name = "mine"', 'name = "../mine"', "mine.toml:1: name: must match pattern"),
        (
            'name = "mine"',
            'name = "mine"\ndtype = "fp32"',
            "mine.toml:2: dtype: must be 'auto', 'float32', 'bfloat16'",
        ),
        ('name = "mine"', 'name = "mine"\n"a\\nb" = 1', "mine.toml:2: 'a\\nb': unknown key"),
    ],
)
def test_what_is_wrong_is_said_with_file_line_and_key(old: str, new: str, message: str) -> None:
    assert error_of(changed(old, new)).startswith(message.replace("the suite has none", "the suite has no"))


def test_a_cell_asked_for_twice_is_shown_with_both_places() -> None:
    text = changed('name = "magnitude"', 'name = "magnitude"\n\n[[methods]]\nname = "magnitude"')
    assert error_of(text) == (
        "mine.toml:13: methods[1]: repeats the cell smollm2-135m magnitude 0.5 "
        "(first: mine.toml:10: methods[0])"
    )


@pytest.mark.parametrize("data", [b"\xff", b"a = 1\n\xff", b"a = " + b"[" * 50_000, b"a = " + b"1" * 5000])
def test_bytes_that_are_no_toml_are_an_input_error(data: bytes) -> None:
    with pytest.raises(InputError, match=r"^x\.toml"):
        parse_suite(data, file="x.toml")


keys = st.sampled_from(
    ["name", "models", "patterns", "dtype", "calibration", "methods", "perplexity", "settings", "seeds", "x"]
)
values = st.recursive(
    st.one_of(st.integers(), st.floats(), st.booleans(), st.text(max_size=5), st.dates(), st.just("wanda")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


def spelled(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(c):08x}" for c in value) + '"'
    if isinstance(value, list):
        return f"[{', '.join(spelled(v) for v in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {spelled(v)}" for k, v in value.items()) + "}"
    return str(value)


@settings(max_examples=200)
@given(st.dictionaries(keys, values, max_size=6))
def test_any_document_is_a_suite_or_an_input_error(document: dict[str, object]) -> None:
    text = "\n".join(f"{key} = {spelled(value)}" for key, value in document.items())
    try:
        plan(read(text), dtype="float32")
    except InputError as error:
        assert "\n" not in str(error)


@settings(max_examples=300)
@given(st.data())
def test_a_suite_with_a_few_characters_changed_is_a_suite_or_an_input_error(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(SUITE) - 1))
    length = data.draw(st.integers(0, 6))
    text = SUITE[:at] + data.draw(st.text('[]{}="\n.#x0-', max_size=4)) + SUITE[at + length :]
    try:
        plan(read(text), dtype="float32")
    except InputError as error:
        assert "\n" not in str(error)
        assert str(error).startswith("mine.toml")


@settings(max_examples=100)
@given(st.binary(max_size=40))
def test_any_bytes_are_a_suite_or_an_input_error(data: bytes) -> None:
    with pytest.raises(InputError):
        parse_suite(data, file="x.toml")


def test_the_built_in_suites_are_suites_of_their_names() -> None:
    assert "quickstart" in builtin_suites()
    for name in builtin_suites():
        config = load_suite(name)
        assert config.name == name
        assert config.description
        assert plan(config, dtype="float32")


def test_quickstart_compares_what_it_promises() -> None:
    cells = plan(load_suite("quickstart"), dtype="float32")
    shown = [(c.method, c.settings.get("initial"), c.pattern) for c in cells]
    methods = ("magnitude", "wanda", "sparsegpt")
    assert shown == [
        ("dense", None, None),
        *((method, None, "0.5") for method in methods),
        *(("llm-barber", method, "0.5") for method in methods),
    ]
    for cell in cells:
        assert cell.divergence and cell.perplexity and cell.tasks and cell.answers


def test_the_comparison_is_the_quickstart_and_the_same_at_two_of_four() -> None:
    quickstart = plan(load_suite("quickstart"), dtype="float32")
    cells = plan(load_suite("comparison"), dtype="float32")
    assert len(cells) == 13
    for one in quickstart:
        assert (one.method, one.settings, one.pattern) in [(c.method, c.settings, c.pattern) for c in cells]
    for cell in cells:
        if cell.pattern == "2:4" and cell.method == "llm-barber":
            assert cell.settings["granularity"] == "output"


def test_the_ablation_holds_the_authors_settings_and_stays_small() -> None:
    cells = plan(load_suite("ablation"), dtype="float32")
    assert len(cells) <= 24
    keys = ("initial", "granularity", "rebuild_ratio", "score", "keep_reconstruction")
    shown = [tuple(cell.settings[key] for key in keys) for cell in cells if cell.method == "llm-barber"]
    for authors in (
        ("magnitude", "block", 0.1, "weight_gradient", False),
        ("wanda", "output", 0.01, "weight_gradient", False),
        ("sparsegpt", "layer", 0.1, "weight_gradient", False),
        ("sparsegpt", "layer", 0.1, "weight_gradient", True),
    ):
        assert authors in shown
    for place, key in enumerate(keys[1:4], start=1):
        assert len({row[place] for row in shown}) > 1, key


def test_a_suite_file_is_read_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SUITE)
    assert load_suite(str(path)).name == "mine"
    monkeypatch.chdir(tmp_path)
    assert load_suite("mine.toml").name == "mine"
    path.write_bytes(b"\xef\xbb\xbf" + SUITE.encode())
    assert load_suite("mine.toml").name == "mine", "some editors put a mark before the text"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("quikstart", "unknown suite 'quikstart'; did you mean 'quickstart'?"),
        ("mine", "unknown suite 'mine'; did you mean the file 'mine.toml'?"),
        ("nowhere.toml", "suite file 'nowhere.toml' cannot be read: No such file or directory"),
        ("folder/", "suite file 'folder/' cannot be read: Is a directory"),
        ("a\0.toml", "suite file 'a\\x00.toml' cannot be read: embedded null byte"),
    ],
)
def test_a_suite_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    (tmp_path / "mine.toml").write_text(SUITE)
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        load_suite(name)
    assert str(caught.value) == message


def test_reading_a_suite_loads_nothing_heavy() -> None:
    code = (
        "import sys; from suite.planning.suite_cells import load_suite; load_suite('quickstart'); "
        "print([m for m in ('torch', 'transformers', 'pandas', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def with_methods(*tables: str) -> bytes:
    text = "\n".join(f"[[methods]]\n{table}" for table in tables)
    head = (
        'name = "r"\nmodels = ["smollm2-135m"]\npatterns = ["0.5"]\n[[perplexity]]\ncorpus = "wiki-sample"\n'
    )
    return (head + text).encode()


def pruned_cells(*tables: str) -> list[Cell]:
    return [cell for cell in plan(parse_suite(with_methods(*tables), file="r.toml")) if not cell.is_dense]


def test_a_recipe_is_a_cell_with_its_allocation_apart() -> None:
    one, other = pruned_cells(
        'recipe = "owl(max_deviation=0.1)|wanda | refit( steps=20 )"',
        'recipe = "wanda | swaps"\nallocation = "alphapruning"',
    )
    assert (one.method, one.settings) == ("recipe", {"recipe": "wanda | refit(steps=20)"})
    assert one.allocation is not None and one.allocation.settings["max_deviation"] == 0.1
    assert one.variant == "owl | wanda | refit(steps=20)"
    assert one.calibration is not None
    assert other.allocation is not None and other.allocation.name == "alphapruning"
    assert part_versions(one) == {"wanda": 1, "refit": 1, "owl": 1}


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (
            'recipe = "owl(max_deviation=0.1) | wanda | swaps | refit(steps=20)"',
            "allocation: owl(max_deviation=0.1), score: wanda, refinement: swaps, update: refit(steps=20)",
        ),
        ('name = "ria"\nsettings = { group = "output" }', "score: ria(group=output)"),
        (
            'name = "llm-barber"\nsettings = { initial = "sparsegpt", rebuild_ratio = 0.1 }',
            "score: sparsegpt, second pass: llm-barber(rebuild_ratio=0.1)",
        ),
        (
            'name = "llm-barber"\n'
            'settings = { initial = "recipe", initial_settings = { recipe = "ria | swaps" } }',
            "score: ria, refinement: swaps, second pass: llm-barber",
        ),
    ],
)
def test_what_prunes_a_cell_is_told_in_parts(table: str, expected: str) -> None:
    [cell] = pruned_cells(table)
    assert ", ".join(f"{part.role}: {part.text}" for part in parts_of(cell)) == expected
    dense = plan(parse_suite(with_methods(table), file="r.toml"))[0]
    assert dense.is_dense and parts_of(dense) == ()


def test_a_label_is_what_tables_call_a_cell_and_asks_for_nothing() -> None:
    [plain] = pruned_cells('recipe = "wanda | refit"')
    [named] = pruned_cells('recipe = "wanda | refit"\nlabel = "Wanda, refitted"')
    assert (named.variant, named.pruner) == ("Wanda, refitted", "wanda | refit")
    assert named.digest == plain.digest and named.by_key == plain.by_key
    assert matching([named], ["refitted"]) == matching([named], ["wanda | refit"]) == [named]


@pytest.mark.parametrize("label", ["", " padded", "padded ", "two\\nlines", "x" * 81])
def test_a_label_is_one_short_line(label: str) -> None:
    with pytest.raises(InputError, match=r"methods\[0\].label: "):
        pruned_cells(f'recipe = "wanda"\nlabel = "{label}"')


@pytest.mark.parametrize("table", ['name = "wanda"', 'name = "recipe"\nsettings = { recipe = "wanda" }'])
def test_a_recipe_of_a_score_alone_is_that_method(table: str) -> None:
    assert pruned_cells('recipe = "wanda"')[0].digest == pruned_cells(table)[0].digest


def test_the_steps_of_an_initial_recipe_are_among_the_versions() -> None:
    [cell] = pruned_cells('name = "llm-barber"\nsettings = { initial = "recipe" }')
    assert part_versions(cell) == {"recipe": 1, "wanda": 1, "swaps": 1, "refit": 1}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            'recipe = "wanda | refitt"',
            "methods[0].recipe: recipe: unknown step 'refitt'; did you mean",
        ),
        ('recipe = "dsnot"', "methods[0].recipe: recipe 'dsnot': dsnot is a refinement and needs a mask"),
        ('recipe = ""', "methods[0].recipe"),
        ('recipe = "wanda"\nname = "wanda"', "methods[0]: give either a name or a recipe"),
        ('patterns = ["0.5"]', "methods[0]: give either a name or a recipe"),
        ('name = "wanda | refit"', "is a recipe: write recipe = 'wanda | refit' in place of a name"),
        ('recipe = "owl | wanda"\nallocation = "owl"', "is given as well; give only one of them"),
        ('recipe = "wanda | refit"\nsettings = { steps = 3 }', "write a recipe's settings in its steps"),
        ('recipe = "owl | wanda"\npatterns = ["2:4"]', "spreads an unstructured sparsity"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_an_error_with_its_line(table: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        pruned_cells(table)
    assert message in str(refused.value)
    assert str(refused.value).startswith("r.toml:")
