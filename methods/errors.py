"""What can go wrong, sorted by whose fault it is.

`InputError` is the user's: the command prints its one line and exits with 2.
`PruningError` is the run's: the cell is recorded as failed, and the command exits with 3.
"""


class InputError(ValueError):
    """The user's input is wrong. The message is one line: what, where, and how to mend it."""


class PruningError(RuntimeError):
    """A prune could not be finished, or did not keep what its method promises."""


class NonFiniteError(PruningError):
    """Activations, statistics or scores hold NaN or infinity; the message names the module."""


class SingularHessianError(PruningError):
    """A Hessian could not be factorized even at the highest damping; the message names the module."""


class ContractError(PruningError):
    """A pruned model breaks a promise of its method (`methods.contract`)."""


class StructureError(PruningError):
    """The model's structure could not be read: what was found and what was expected."""
