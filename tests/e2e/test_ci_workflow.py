"""docs/ci/prunebench-gate.yml: what can be held without GitHub, and its steps run one after another."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import PATIENCE_S
from tests.e2e.own_method import environment, install, turn_around, write_own_suite

FOLDER = Path(__file__).parents[2] / "docs" / "ci"
TEXT = (FOLDER / "prunebench-gate.yml").read_text()
# YAML 1.1 reads the key `on` as true.
WORKFLOW: dict[str, Any] = {
    "on" if key is True else key: value for key, value in yaml.safe_load(TEXT).items()
}
STEPS = [(job, step) for job, table in WORKFLOW["jobs"].items() for step in table["steps"]]
SCRIPTS = {step["name"]: step["run"] for _, step in STEPS if "run" in step}

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")

FAKE_GH = """#!{python}
import json, sys
from pathlib import Path

arguments = sys.argv[1:]
comments = Path({folder!r}) / "comments.json"
known = json.loads(comments.read_text()) if comments.exists() else {{}}
if "--method" not in arguments:
    assert arguments[-1].startswith(".[] | select(")
    print("\\n".join(known))
else:
    body = Path(arguments[arguments.index("--field") + 1].removeprefix("body=@")).read_text()
    post = arguments[arguments.index("--method") + 1] == "POST"
    assert arguments[4] == ("repos/o/r/issues/7/comments" if post else "repos/o/r/issues/comments/1")
    assert post == (not known)
    comments.write_text(json.dumps({{"1": body}}))
"""


def test_no_job_has_more_rights_than_it_needs():
    assert WORKFLOW["permissions"] == {}
    rights = {name: job["permissions"] for name, job in WORKFLOW["jobs"].items()}
    assert rights == {"gate": {"contents": "read"}, "comment": {"pull-requests": "write"}}
    # The job that may write runs no code of the pull request.
    assert not any("checkout" in step.get("uses", "") for job, step in STEPS if job == "comment")
    checkout = next(step for _, step in STEPS if "checkout" in step.get("uses", ""))
    assert checkout["with"]["persist-credentials"] is False
    assert "pull_request_target" not in WORKFLOW["on"]


def test_nothing_from_outside_is_written_into_a_script():
    assert SCRIPTS
    for script in SCRIPTS.values():
        assert "${{" not in script


def test_every_job_ends_and_every_action_has_a_version():
    assert all("timeout-minutes" in job for job in WORKFLOW["jobs"].values())
    assert "concurrency" in WORKFLOW
    used = [step["uses"] for _, step in STEPS if "uses" in step]
    assert all(re.fullmatch(r"actions/[a-z/-]+@v\d+", action) for action in used)


def test_evidence_is_kept_when_the_gate_fails():
    uploads = [step for _, step in STEPS if "upload-artifact" in step.get("uses", "")]
    assert len(uploads) == 2
    assert all("!cancelled()" in step["if"] for step in uploads)


def test_a_baseline_is_restored_under_the_name_it_was_stored_under():
    restore = next(step["with"] for _, step in STEPS if "cache/restore" in step.get("uses", ""))
    store = next(step["with"] for _, step in STEPS if "cache/save" in step.get("uses", ""))
    assert restore["path"] == store["path"]
    assert store["key"].startswith(restore["restore-keys"])
    assert restore["key"].startswith(restore["restore-keys"])


@pytest.mark.parametrize("name", SCRIPTS)
def test_its_scripts_are_bash(name, tmp_path):
    script = tmp_path / "step.sh"
    script.write_text(f"#!/usr/bin/env bash\nset -eo pipefail\n{SCRIPTS[name]}")
    checked = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    if shutil.which("shellcheck"):
        checked = subprocess.run(["shellcheck", script], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout


def test_the_script_beside_it_is_clean():
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    checked = subprocess.run(["shellcheck", FOLDER / "gate.sh"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


class Runner:
    """Stands for the machine that runs the gate job: keeps what the steps write, and main's cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = folder / "workspace"
        self.workspace.mkdir()
        (self.workspace / "ci").mkdir()
        shutil.copy(FOLDER / "gate.sh", self.workspace / "ci")
        self.suite = write_own_suite(self.workspace)
        self.summary = folder / "summary.md"

    def step(self, name: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs one step as the runner does: `bash --noprofile --norc -eo pipefail`."""
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", SCRIPTS[name]],
            cwd=self.workspace,
            env={
                **environment(self.folder / "site"),
                **WORKFLOW["env"],
                "SUITE": str(self.suite),
                "RUNNER_TEMP": str(self.folder),
                "GITHUB_OUTPUT": str(self.folder / "output"),
                "GITHUB_STEP_SUMMARY": str(self.summary),
                "GITHUB_REPOSITORY": "o/r",
                **variables,
            },
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    def outputs(self) -> dict[str, str]:
        lines = (self.folder / "output").read_text().splitlines()
        (self.folder / "output").unlink()
        return dict(line.split("=", 1) for line in lines)


@pytest.mark.slow
def test_from_the_first_pull_request_to_a_regression(tmp_path):
    module = install(tmp_path / "site")
    runner = Runner(tmp_path)
    baseline = runner.workspace / WORKFLOW["env"]["BASELINE"]
    candidate = runner.workspace / WORKFLOW["env"]["CANDIDATE"]

    # A pull request before main ever ran.
    runner.step("Find the baseline", IS_MAIN="false")
    assert runner.outputs() == {"restore": "true", "store": "false"}
    first = runner.step("Run the suite and compare", STORE="false")
    assert first.returncode == 3, first.stdout
    assert "::error title=prunebench::No regression was found, but not everything" in first.stdout
    assert "There is no baseline yet" in runner.summary.read_text()
    assert runner.outputs() == {"summary": "written"}

    # Main's first push makes one.
    runner.step("Find the baseline", IS_MAIN="true")
    assert runner.outputs() == {"restore": "true", "store": "true"}
    shutil.rmtree(candidate)
    assert runner.step("Run the suite and compare", STORE="true").returncode == 0
    assert runner.step("Make these records the baseline").returncode == 0
    assert len(list(baseline.glob("*/*.json"))) == 2

    # From now on a folder is there: as if it were committed.
    runner.outputs()
    runner.step("Find the baseline", IS_MAIN="true")
    assert runner.outputs() == {"store": "false"}

    turn_around(module)
    shutil.rmtree(candidate)
    worse = runner.step("Run the suite and compare", STORE="false")
    assert worse.returncode == 1, worse.stdout
    assert "::error title=prunebench::A regression was found" in worse.stdout
    assert "## prunebench: Regression" in runner.summary.read_text()
    assert {path.name for path in candidate.glob("*.*")} == {
        *("gate.md", "gate.xml", "report.html", "run.finished")
    }

    # What is wrong with the input is no regression, and an earlier summary is not shown for it.
    runner.suite.write_text("patterns = 5\n")
    wrong = runner.step("Run the suite and compare", STORE="true")
    assert wrong.returncode == 2, wrong.stdout
    assert "The input is wrong" in wrong.stdout
    assert (candidate / "gate.md").read_text().startswith("## prunebench: nothing was compared")


@pytest.mark.slow
def test_there_is_one_comment_however_often_it_runs(tmp_path):
    runner = Runner(tmp_path)
    binaries = tmp_path / "bin"
    binaries.mkdir()
    gh = binaries / "gh"
    gh.write_text(FAKE_GH.format(python=sys.executable, folder=str(tmp_path)))
    gh.chmod(0o755)
    path = os.pathsep.join([str(binaries), environment(tmp_path)["PATH"]])
    for text in ("first", "second"):
        (runner.workspace / "gate.md").write_text(f"{text}\n")
        done = runner.step("Write the comment, or write it anew", PULL_REQUEST="7", PATH=path)
        assert done.returncode == 0, done.stderr
        assert f"<!-- prunebench gate -->\\n{text}\\n" in (tmp_path / "comments.json").read_text()
