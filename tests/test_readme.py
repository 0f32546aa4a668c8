"""What the README tells a newcomer to write is accepted."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from suite.planning.suite_cells import parse_suite, plan

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_first_own_suite_is_a_valid_one_in_ten_lines():
    (block,) = re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)
    assert len(block.splitlines()) <= 10
    cells = plan(parse_suite(block.encode(), file="README.md"), dtype="float32")
    assert [(cell.method, cell.pattern) for cell in cells] == [
        ("dense", None),
        ("llm-barber", "0.5"),
        ("llm-barber", "2:4"),
    ]


@pytest.mark.slow
@pytest.mark.model
def test_the_first_script_runs_a_suite(tmp_path):
    script = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)[0]
    assert len(script.splitlines()) == 5
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    dense, wanda, barber = done.stdout.splitlines()
    assert dense.startswith("smollm2-135m dense ")
    assert wanda.startswith("smollm2-135m wanda 0.5 ")
    assert barber.startswith("smollm2-135m llm-barber ")
    assert float(dense.split()[-1]) < float(wanda.split()[-1])
    assert (tmp_path / "runs" / "smoke" / "report.html").is_file()
