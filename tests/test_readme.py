"""What the README tells a newcomer to write is accepted."""

import re
from pathlib import Path

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


def test_every_link_into_the_repository_leads_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    for link in links:
        assert (Path(__file__).parent.parent / link).exists(), link
