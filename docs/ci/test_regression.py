"""Has a change made my-method worse? Copy this file and regression.toml to your tests.

The first time, and whenever a change is intended: run `pytest --update-baselines`, check what it prints,
commit the folder.
"""

from pathlib import Path

HERE = Path(__file__).parent


def test_my_method_prunes_as_well_as_before(run_suite, assert_no_regression):
    """Compares every cell of the suite with the committed records."""
    assert_no_regression(run_suite(HERE / "regression.toml"), HERE / "regression-baseline")
