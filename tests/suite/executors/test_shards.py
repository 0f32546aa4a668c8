"""A plan is cut the same way everywhere, and every cell is in one shard."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods.errors import InputError
from suite.planning.shards import Shard, parse_shard
from tests.suite.conftest import refusal
from tests.tiny import write_suite


@given(st.integers(0, 50), st.integers(1, 60))
def test_shards_make_up_the_plan(n_cells, count):
    plan = list(range(n_cells))
    parts = [Shard(index, count).of(plan) for index in range(1, count + 1)]
    assert [cell for part in parts for cell in part] == plan
    sizes = {len(part) for part in parts}
    assert max(sizes) - min(sizes) <= 1


def test_a_shard_is_written_as_a_fraction():
    assert parse_shard(" 2/5 ") == Shard(2, 5)
    assert str(Shard(2, 5)) == "2/5"


@pytest.mark.parametrize("text", ["0/2", "3/2", "1/0", "1", "a/b", "-1/2", "1/2/3", "", "1.5/2"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(InputError, match="--shard"):
        parse_shard(text)


def test_a_shard_out_of_range_and_an_empty_one(prunebench, tmp_path):
    path = write_suite(tmp_path, "magnitude", patterns=["0.5"])
    assert "shards of 2 go from 1/2 to 2/2" in refusal(prunebench("run", path, "--shard", "3/2"))
    code, out, err = prunebench("run", path, "--shard", "2/9", "--out", "runs")
    assert (code, out) == (0, "")
    assert "shard 2/9 is empty: the plan has 2 cells" in err


def test_where_dtypes_may_differ_it_is_said(prunebench, tmp_path):
    path = write_suite(tmp_path, "magnitude", patterns=["0.5"])
    path.write_text(path.read_text().replace('dtype = "float32"', 'dtype = "auto"'))
    assert "dtype 'auto' is " in prunebench("run", path, "--shard", "1/2", "--dry-run")[2]
