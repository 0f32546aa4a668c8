"""One-shot pruning methods for causal language models, behind one interface.

from methods import build, parse_pattern
result = build("wanda").prune(model, parse_pattern("0.5"), calibration)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from methods.base import CalibrationSet, LayerReport, Placement, PruneResult, PruningMethod
    from methods.errors import ContractError, InputError, NonFiniteError, PruningError
    from methods.keep_mask import KeepMask
    from methods.pattern import SemiStructured, SparsityPattern, Unstructured, parse_pattern
    from methods.registry import build, method_class, names

_HOME = {
    "CalibrationSet": "base",
    "KeepMask": "keep_mask",
    "LayerReport": "base",
    "Placement": "base",
    "PruneResult": "base",
    "PruningMethod": "base",
    "ContractError": "errors",
    "InputError": "errors",
    "NonFiniteError": "errors",
    "PruningError": "errors",
    "SemiStructured": "pattern",
    "SparsityPattern": "pattern",
    "Unstructured": "pattern",
    "parse_pattern": "pattern",
    "build": "registry",
    "method_class": "registry",
    "names": "registry",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for, so that importing the package stays cheap."""
    if name not in _HOME:
        raise AttributeError(f"module 'methods' has no attribute {name!r}")
    return getattr(import_module(f"methods.{_HOME[name]}"), name)


__all__ = [
    "CalibrationSet",
    "ContractError",
    "InputError",
    "KeepMask",
    "LayerReport",
    "NonFiniteError",
    "Placement",
    "PruneResult",
    "PruningError",
    "PruningMethod",
    "SemiStructured",
    "SparsityPattern",
    "Unstructured",
    "build",
    "method_class",
    "names",
    "parse_pattern",
]
