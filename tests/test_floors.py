"""The house: its rooms from the ground up. Imports go down, never up, and files make no circles."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("methods", "suite", "reports")
OURS = {*PACKAGES, "tests", "benchmarks"}

# A room is a folder with the files in it, or a file that lies loose in a package. A room imports from floors
# below its own; rooms on one floor do not know each other. Imports inside functions and for type checkers
# count like all others; names in strings (entry points, lazy public names) are not seen.
FLOORS = """
methods.errors          methods.lazy            methods.layer_report
methods.masks
methods.structure
methods.base
methods.allocation      methods.contract        methods.placement
methods.engine
methods.updates         methods.registry
methods.scores
methods.refinements     methods.allocations     methods.initial         methods.recipe
methods.dsnot           methods.llm_barber
methods
methods.conformance

suite.cell              suite.storage
suite.results.records
suite.results           suite.results.statistics                        suite.watcher
suite.results.history   suite.results.gate      suite.results.verification
suite.tracking          suite.machine
suite.data              suite.evaluation.speed
suite.models            suite.evaluation.scoring                        suite.evaluation.offline_tasks
suite.evaluation.lm_eval_tasks
suite.evaluation
suite.planning
suite.sharing
suite.running
suite.executors         suite.checkpoints.writing                       suite.inspection
suite.executors.ray     suite.checkpoints

reports.wording
reports.templating      reports.rankings        reports.gate
reports.tables
reports.chapters        reports.site.files
reports.accuracy        reports.charts          reports.export.paper    reports.site.records
reports.page            reports.export          reports.site.boards
reports                 reports.terminal        reports.site.pages
reports.site

suite.api
suite
suite.commands.output
suite.commands
suite.pytest_plugin     suite.cli
"""
FLOOR = {room: floor for floor, line in enumerate(FLOORS.splitlines()) for room in line.split()}
MOST_LOOSE, MOST_FILES = 5, 15


def files() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """The room of a module, or of a package as others import it."""
    return module if module in FLOOR else module.rpartition(".")[0]


def imported_by(source: str, modules: Iterable[str]) -> Iterator[tuple[int, str]]:
    """(line, module) of every import of ours; `from suite import results` imports `suite.results`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno} imports relatively"
            members = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules else str(node.module) for name in members]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.partition(".")[0] in OURS)


def trespasses(module: str, imported: str) -> bool:
    """Whether `module` may not import `imported`."""
    here, there = room_of(module), room_of(imported)
    if here == there:
        return False
    if here.startswith("reports") and not there.startswith("reports"):
        # Reports read records, write files and never touch a model.
        return not f"{there}.".startswith(("suite.results.", "suite.storage.", "methods.lazy."))
    return there not in FLOOR or FLOOR[there] >= FLOOR[here]


def graph() -> Mapping[str, set[str]]:
    modules = {module_of(path) for path in files()}
    return {module_of(path): {name for _, name in imported_by(path.read_text(), modules)} for path in files()}


def test_every_file_is_in_a_room():
    homeless = [name for name in map(module_of, files()) if room_of(name) not in FLOOR]
    assert homeless == [], "a new room wants a floor"
    assert FLOOR.keys() == {room_of(module_of(path)) for path in files()}
    assert len(FLOORS.split()) == len(FLOOR), "a room has two floors"


def test_no_import_runs_up():
    modules = {module_of(path) for path in files()}
    up = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in files()
        for line, name in imported_by(path.read_text(), modules)
        if trespasses(module_of(path), name)
    ]
    assert up == []


def test_a_package_imports_no_more_than_its_lowest_room_may():
    """Its `__init__` is run on the way to each of them."""
    modules = {module_of(path) for path in files()}
    above = []
    for path in files():
        package = module_of(path)
        rooms = [FLOOR[room] for room in FLOOR if room.startswith(f"{package}.")]
        if path.name == "__init__.py" and rooms:
            run = [node for node in ast.parse(path.read_text()).body if not isinstance(node, ast.If)]
            eager = imported_by("\n".join(map(ast.unparse, run)), modules)
            above += [(package, name) for _, name in eager if FLOOR[room_of(name)] > min(rooms)]
    assert above == []


@pytest.mark.parametrize(
    ("module", "planted", "trespassing"),
    [
        ("methods.scores.wanda", "from methods.engine.layerwise import prune_by_steps", False),
        ("methods.scores.wanda", "from methods import llm_barber", True),
        ("methods.scores.wanda", "import methods.refinements.swaps", True),
        ("methods.scores.wanda", "def f():\n    from suite.cell import Cell", True),
        ("methods.engine.hidden_states", "from methods import build", True),
        ("suite.results.records.store", "from suite.machine.cache import built_once", True),
        ("suite.running.run_cell", "import suite.planning.method_of_cell", False),
        ("suite.planning.preflight", "from suite.running.run_cell import run_cell", True),
        ("suite.running.run_cell", "from reports import render_report", True),
        ("suite.api.report", "from reports import render_report", False),
        ("suite.commands.run", "from tests.tiny import a_model", True),
        ("reports.rankings.frame", "from suite.results import Record", False),
        ("reports.rankings.frame", "import suite.results.records.record", False),
        ("reports.rankings.frame", "from suite.cell import Cell", True),
        ("reports.rankings.frame", "from suite.models.loading import load_model", True),
        ("reports.rankings.frame", "from methods.base import Placement", True),
        ("reports.rankings.frame", "import reports.page.html", True),
    ],
)
def test_a_planted_import_that_runs_up_is_found(module, planted, trespassing):
    modules = {module_of(path) for path in files()}
    ((_, imported),) = imported_by(planted, modules)
    assert trespasses(module, imported) == trespassing


def test_files_make_no_circle():
    TopologicalSorter(graph()).prepare()


def test_a_planted_circle_is_found():
    planted = {**graph(), "methods.errors": {"methods.scores.wanda"}}
    with pytest.raises(CycleError):
        TopologicalSorter(planted).prepare()


def test_no_folder_is_crowded():
    crowded = {
        folder.relative_to(ROOT).as_posix(): n
        for package in PACKAGES
        for folder in [ROOT / package, *(ROOT / package).rglob("*")]
        if folder.is_dir() and (n := len(list(folder.glob("*.py")))) > MOST_FILES
    }
    assert crowded == {}
    assert len(list((ROOT / "suite").glob("*.py"))) <= MOST_LOOSE
