"""What every test runs under."""

import pytest
import torch


@pytest.fixture(autouse=True)
def threads(request):
    """One thread for tiny tensors, which more of them only slow down; all of them for the real model."""
    before = torch.get_num_threads()
    if request.node.get_closest_marker("model") is None:
        torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
