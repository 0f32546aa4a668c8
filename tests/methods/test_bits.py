"""A keep-mask packed on a device is, bit by bit, what NumPy packs on the host; tensors compared by bits."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from methods.masks.bits import packed, same_bits, unpacked
from methods.masks.keep_mask import KeepMask

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


def numbers(*values, dtype=torch.float32):
    return torch.tensor(values, dtype=dtype)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn]
)
def test_nan_is_the_same_as_itself_and_the_two_zeros_differ(dtype):
    assert same_bits(numbers(1, float("nan"), -0.0, dtype=dtype), numbers(1, float("nan"), -0.0, dtype=dtype))
    assert not same_bits(numbers(0.0, dtype=dtype), numbers(-0.0, dtype=dtype))


def test_complex_numbers_are_compared_by_both_parts():
    nan = complex(1, float("nan"))
    assert same_bits(numbers(nan, dtype=torch.complex64), numbers(nan, dtype=torch.complex64))
    assert not same_bits(
        numbers(1 + 0j, dtype=torch.complex64), numbers(complex(1, -0.0), dtype=torch.complex64)
    )


def test_another_nan_differs():
    quiet = torch.tensor([0x7FC00000, 0x7FC00001], dtype=torch.int32).view(torch.float32)
    assert same_bits(quiet, quiet.clone())
    assert not same_bits(quiet[:1], quiet[1:])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (numbers(1.0), numbers(1, dtype=torch.int32)),
        (numbers(1.0), numbers(1.0, dtype=torch.float64)),
        (numbers(1.0, 2.0), numbers(1.0, 2.0)[:, None]),
        (numbers(1, dtype=torch.int64), numbers(2, dtype=torch.int64)),
    ],
)
def test_another_type_shape_or_whole_number_differs(one, other):
    assert not same_bits(one, other)
    assert same_bits(one, one.clone())


def test_a_view_is_compared_in_its_own_order():
    values = torch.arange(6.0).reshape(2, 3)
    assert same_bits(values.T, values.T.contiguous())
    assert not same_bits(values.T, values.reshape(3, 2))
    assert same_bits(torch.tensor(float("nan")), torch.tensor(float("nan")))
