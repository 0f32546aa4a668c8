"""Pages are true: links, paths, public names, versions; workflows and templates are valid."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import methods
import suite

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page.relative_to(ROOT)
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md"))
)
PACKAGES = "methods|suite|reports|tests|benchmarks|docs"
GENERATED = {"benchmarks/latest.json"}
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def prose_of(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors_of(page: Path) -> set[str]:
    """The anchors of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose_of(page), re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_into_the_repository_leads_somewhere(page):
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose_of(page)):
        path, _, anchor = link.partition("#")
        target = (ROOT / page.parent / path).resolve() if path else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors_of(target.relative_to(ROOT)), link


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=str)
def test_every_path_that_a_page_names_exists(page):
    named = re.findall(rf"`((?:{PACKAGES})/[\w./-]*)`", prose_of(page))
    missing = [path for path in named if not (ROOT / path).exists() and path not in GENERATED]
    assert missing == []


def test_the_map_has_every_room():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    (drawn,) = re.findall(r"^```mermaid\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    for package in ("methods", "suite", "reports"):
        part = drawn.partition(f"subgraph {package}\n")[2].partition("\n  end")[0]
        told = set(re.findall(r'\["(\w+):', part))
        folders = {folder.name for folder in (ROOT / package).iterdir() if (folder / "__init__.py").exists()}
        assert folders <= told, package
        assert all((ROOT / package / name).is_dir() for name in told), package


@pytest.mark.parametrize("package", [suite, methods], ids=lambda package: package.__name__)
def test_the_api_page_has_every_public_name_and_no_other(package):
    page = (ROOT / "docs" / "api.md").read_text()
    part = page.partition(f"\n## `{package.__name__}`\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", part, re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(\w+)", row)}
    assert told == set(package.__all__)


def test_the_signatures_on_the_api_page_are_those_of_the_functions():
    import inspect

    page = (ROOT / "docs" / "api.md").read_text()
    for function in (suite.run_suite, suite.prune_checkpoint, suite.evaluate_checkpoint, suite.load_suite):
        (shown,) = re.findall(rf"`{function.__name__}\(([^)]*)\)`", page)
        wanted = [name for name in shown.replace("*, ", "").split(", ") if name != "..."]
        parameters = list(inspect.signature(function).parameters)
        assert [name for name in parameters if name in wanted] == wanted
        if "..." not in shown:
            assert parameters == wanted


def test_version_and_date_are_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == VERSION
    changelog = (ROOT / "CHANGELOG.md").read_text()
    [(newest, date), *_] = re.findall(r"^## (\d+\.\d+\.\d+), (\d{4}-\d{2}-\d{2})$", changelog, re.MULTILINE)
    assert (newest, date) == (VERSION, citation["date-released"])


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("github-workflows", ".github/workflows/ci.yml"),
        ("github-workflows", "docs/ci/prunebench-gate.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/bug.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/feature.yml"),
        ("github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
        ("citation-file-format", "CITATION.cff"),
    ],
)
def test_it_is_valid_by_its_schema(schema, path):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_workflow_runs_what_lands_a_change():
    steps = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["ci"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]


def test_the_hooks_are_local_and_use_the_pinned_tools():
    command = [sys.executable, "-m", "pre_commit", "validate-config", ".pre-commit-config.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    assert {hook["entry"].split()[0] for hook in repository["hooks"]} == {".venv/bin/ruff", ".venv/bin/mypy"}


@pytest.mark.parametrize("package", ["methods", "suite", "reports"])
def test_the_packages_say_that_they_are_typed(package):
    assert (ROOT / package / "py.typed").is_file()
