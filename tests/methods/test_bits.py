"""A keep-mask packed on a device is, bit by bit, what NumPy packs on the host."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from methods.bits import packed, unpacked
from methods.keep_mask import KeepMask

FLAGS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=11))


@settings(max_examples=200)
@given(FLAGS)
@example(np.zeros((0,), dtype=np.bool_))
@example(np.zeros((3, 0), dtype=np.bool_))
@example(np.ones((1,), dtype=np.bool_))
@example(np.ones((5, 8), dtype=np.bool_))
def test_a_device_packs_as_numpy_does_and_unpacks_it_again(flags):
    on_device = packed(torch.from_numpy(flags))
    assert on_device.dtype == torch.uint8
    assert on_device.numpy().tobytes() == np.packbits(flags.ravel()).tobytes()
    assert np.array_equal(unpacked(on_device, flags.size).reshape(flags.shape).numpy(), flags)


@given(st.integers(1, 20), st.integers(1, 20))
def test_a_transposed_mask_is_packed_in_its_own_order(rows, columns):
    keep = torch.rand(rows, columns, generator=torch.Generator().manual_seed(rows)) > 0.4
    assert packed(keep.T).numpy().tobytes() == np.packbits(keep.T.numpy().ravel()).tobytes()
    assert packed(keep.T).numpy().tobytes() == KeepMask.pack(keep.T).bits


@pytest.mark.parametrize("device", [None, torch.device("cpu")])
def test_a_mask_on_the_host_comes_back_as_it_went(device):
    keep = torch.rand(7, 5, generator=torch.Generator().manual_seed(1)) > 0.5
    assert torch.equal(KeepMask.pack(keep).unpack(device), keep)


def test_only_packed_bytes_go_to_a_device():
    mask = KeepMask.pack(torch.ones(6, 9, dtype=torch.bool))
    there = mask.unpack(torch.device("meta"))
    assert there.device.type == "meta"
    assert there.shape == (6, 9)
    assert there.dtype == torch.bool
