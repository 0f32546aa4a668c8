"""Has a change made my-method worse? Copy this file and regression.toml to your tests.

The first time, and whenever a change is meant: run `pytest --update-baselines`, look at what it says, commit
the folder.
"""

from pathlib import Path

HERE = Path(__file__).parent


def test_my_method_prunes_as_well_as_before(run_suite, assert_no_regression):
    """Every cell of the suite, held against the committed records."""
    assert_no_regression(run_suite(HERE / "regression.toml"), HERE / "regression-baseline")
