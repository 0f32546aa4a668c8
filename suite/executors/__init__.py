"""Where the cells of a plan run, and which of them need to."""

from suite.executors.here import run_here
from suite.executors.plan import Existing, Outcome, PlannedCell, decide, hold_against_inputs

__all__ = ["Existing", "Outcome", "PlannedCell", "decide", "hold_against_inputs", "run_here"]
