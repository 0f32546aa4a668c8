"""Settings for all tests, and the summary of the contract at the end of a run."""

import signal

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.contract_table import entries, lines, skipped

# A background job ignores SIGINT, and so would every process that a test starts in order to interrupt it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No test fails because an example takes long: that depends on the machine.
settings.register_profile("prunebench", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("prunebench")


def pytest_addoption(parser):
    parser.addoption(
        "--whole-contract",
        action="store_true",
        help="run every method x pattern x family and every hard input, not just enough to cover all pairs",
    )


def pytest_terminal_summary(terminalreporter, config):
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    if not (found := entries(reports)):
        return
    part = "whole" if config.getoption("whole_contract") else "the part that covers all pairs"
    terminalreporter.section(f"contract: cases kept + not kept, {part}")
    for line in lines(found):
        terminalreporter.write_line(line)
    not_tried = skipped(terminalreporter.stats.get("skipped", []))
    for line in not_tried or ["none was skipped"]:
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def threads(request):
    """Runs tests with one thread, as more slow tiny tensors down; tests of the real model use all."""
    before = torch.get_num_threads()
    if request.node.get_closest_marker("model") is None:
        torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
