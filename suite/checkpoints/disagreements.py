"""Compares a checkpoint's weights with its `pruning.json`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from suite.models.zeros import Zeros
from suite.results.records.pruning_file import PRUNING, Pruning
from suite.results.verification.checked_record import Subject
from suite.results.verification.pruning import check_sparsity


def disagreements(pruning: Pruning, zeros: Zeros) -> Iterator[str]:
    """Yields one sentence per difference between a checkpoint's weights and its `pruning.json`.

    There may be more zeros than pruned weights, but not fewer: dense weights may have been 0 already, an
    earlier prune may have removed more, or a reconstruction may have made some 0.
    """
    recorded, counted = pruning.n_zeros, zeros.counts
    # Small weights may have been rounded to 0 when loaded as float16, which has no values below 3e-8.
    rounded = zeros.dtype == torch.float16 and pruning.model.dtype != "float16"
    off = [
        name
        for name in sorted({*recorded, *counted})
        if not (name in recorded and name in counted)
        or not (recorded[name] == counted[name] or (rounded and recorded[name] < counted[name]))
    ]
    if off:
        name = off[0]
        yield (
            f"{PRUNING} does not fit the weights in {len(off)} modules: it says that {name} has "
            f"{recorded.get(name)} zeros, and there are {counted.get(name)}"
        )
    n_pruned = {module.module: module.n_pruned for module in pruning.record.modules}
    lacking = [name for name in counted if n_pruned.get(name, 0) > counted[name]]
    if lacking:
        name = lacking[0]
        yield (
            f"{PRUNING} does not fit the weights in {len(lacking)} modules: it says that {n_pruned[name]} "
            f"weights of {name} were pruned, and only {counted[name]} are 0"
        )
    if n_pruned.keys() == counted.keys():
        # The recorded numbers of pruned weights with the actual shapes of the modules.
        modules = tuple(m.model_copy(update={"n_pruned": n_pruned[m.module]}) for m in zeros.modules)
        record = pruning.record.model_copy(update={"modules": modules})
        wrong = [finding.message for finding in check_sparsity(Subject(Path(PRUNING), record))]
        if wrong:
            shown = list(dict.fromkeys([wrong[0], wrong[-1]]))  # the first module, and the whole model
            more = f" (and {len(wrong) - len(shown)} more)" if len(wrong) > len(shown) else ""
            yield f"{PRUNING} contradicts itself: {'; '.join(shown)}{more}"


__all__ = ["disagreements"]
