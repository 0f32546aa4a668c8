"""One-shot pruning methods for causal language models, behind one interface.

from methods import build, parse_pattern
result = build("wanda").prune(model, parse_pattern("0.5"), calibration)

Methods of other packages import everything they need from here; the modules below this package may be
rearranged at any time.
"""

from typing import TYPE_CHECKING

from methods.lazy import lazily

if TYPE_CHECKING:
    from methods.allocation import Allocation
    from methods.base import (
        CalibrationSet,
        Placement,
        PruneResult,
        PruningMethod,
        ignore_layer,
        with_calibration,
    )
    from methods.engine.hidden_states import at_rest
    from methods.engine.layerwise import Score, prune_by_steps
    from methods.engine.statistics import GramMatrix, InputNorms, InputStatistic
    from methods.engine.steps import BlockRefinement, Problem, Refinement, Solution, Step, Update
    from methods.errors import ContractError, InputError, NonFiniteError, PruningError
    from methods.initial import initial_mask
    from methods.layer_report import LayerReport
    from methods.masks.keep_mask import KeepMask
    from methods.masks.pattern import (
        SemiStructured,
        SparsityPattern,
        UniformPattern,
        Unstructured,
        parse_pattern,
    )
    from methods.masks.selection import prune_lowest, prune_n_of_m, require_finite
    from methods.placement.layer_loading import residing
    from methods.recipe import Recipe, parse_recipe
    from methods.registry import build, method_class, names
    from methods.structure.decoder import read_decoder
    from methods.structure.target import Target

_NAMES = {
    "allocation": ("Allocation",),
    "base": (
        "CalibrationSet",
        "Placement",
        "PruneResult",
        "PruningMethod",
        "ignore_layer",
        "with_calibration",
    ),
    "engine.hidden_states": ("at_rest",),
    "engine.layerwise": ("Score", "prune_by_steps"),
    "engine.statistics": ("GramMatrix", "InputNorms", "InputStatistic"),
    "engine.steps": ("BlockRefinement", "Problem", "Refinement", "Solution", "Step", "Update"),
    "errors": ("ContractError", "InputError", "NonFiniteError", "PruningError"),
    "initial": ("initial_mask",),
    "layer_report": ("LayerReport",),
    "masks.keep_mask": ("KeepMask",),
    "masks.pattern": (
        "SemiStructured",
        "SparsityPattern",
        "UniformPattern",
        "Unstructured",
        "parse_pattern",
    ),
    "masks.selection": ("prune_lowest", "prune_n_of_m", "require_finite"),
    "placement.layer_loading": ("residing",),
    "recipe": ("Recipe", "parse_recipe"),
    "registry": ("build", "method_class", "names"),
    "structure.decoder": ("read_decoder",),
    "structure.target": ("Target",),
}
__getattr__, __dir__ = lazily(__name__, _NAMES)

__all__ = [
    "Allocation",
    "BlockRefinement",
    "CalibrationSet",
    "ContractError",
    "GramMatrix",
    "InputError",
    "InputNorms",
    "InputStatistic",
    "KeepMask",
    "LayerReport",
    "NonFiniteError",
    "Placement",
    "Problem",
    "PruneResult",
    "PruningError",
    "PruningMethod",
    "Recipe",
    "Refinement",
    "Score",
    "SemiStructured",
    "Solution",
    "SparsityPattern",
    "Step",
    "Target",
    "UniformPattern",
    "Unstructured",
    "Update",
    "at_rest",
    "build",
    "ignore_layer",
    "initial_mask",
    "method_class",
    "names",
    "parse_pattern",
    "parse_recipe",
    "prune_by_steps",
    "prune_lowest",
    "prune_n_of_m",
    "read_decoder",
    "require_finite",
    "residing",
    "with_calibration",
]
