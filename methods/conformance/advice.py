"""What to do about each finding of `methods.contract`, for the author of a method."""

from __future__ import annotations

_ADVICE = (
    (
        "dtype, device or requires_grad was",
        4,
        "Put back what you change in a finally block; methods.at_rest puts back modes.",
    ),
    (
        "training mode or hooks were left changed",
        4,
        "Remove hooks in a finally block, and run inside methods.at_rest(model).",
    ),
    ("config.use_cache was", 4, "Pass use_cache=False to the call; leave the configuration alone."),
    (
        "the embeddings were tied before",
        4,
        "Write weights in place (target.write); assigning a new Parameter cuts ties.",
    ),
    (
        "masks and target modules do not match",
        1,
        "Give one mask a target of read_decoder(model).targets(), under target.mask_name.",
    ),
    ("is no target module and was changed", 1, "Write into targets only (target.write)."),
    (
        "for a weight",
        1,
        "A mask lies as the weight is stored; target.pack(keep) makes it from a keep [out, in].",
    ),
    (
        "a pruned weight is not 0",
        1,
        "Write what the mask says: target.write(weight, keep) stores exact zeros where keep is False.",
    ),
    (
        "holds NaN or infinite weights",
        5,
        "Call methods.require_finite on what is computed before it is written.",
    ),
    (
        "a surviving weight was changed",
        1,
        "Write the old values where keep is True, in the model's dtype; "
        "a method that changes them on purpose says reconstructs = True.",
    ),
    (
        "does not keep",
        2,
        "Choose inside every M consecutive inputs of a row: methods.prune_n_of_m(scores [out, in]).",
    ),
    (
        "comparison groups lost another number than due",
        2,
        "Remove pattern.for_module(name).n_pruned(n) of each group of n "
        "(methods.prune_lowest), and state the group in comparison_group.",
    ),
    (
        "the rebuild changed its survivors",
        2,
        "A rebuild swaps: as many weights come back in a block as go.",
    ),
    (
        "the report says",
        0,
        "Set LayerReport.module to target.name and n_pruned to the number of False in the mask.",
    ),
)


def advice_for(finding: str) -> tuple[int, str]:
    """The promise that a `ContractError` speaks of, and what to do."""
    for fragment, promise, advice in _ADVICE:
        if fragment in finding:
            return promise, advice
    return 0, "methods/contract.py says what it compares."


__all__ = ["advice_for"]
