"""`python -m benchmarks.capacity`: memory and time of cells of large models, and of a leaderboard of them.

Everything is calculated from counts of operations and bytes, nothing is run: the passes of the floors
(README.md), two operations per weight and token, and an assumed rate. Prints the tables of docs/scale.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from suite.evaluation.scoring.decoder_pass import MAX_CARRIED_BYTES
from suite.machine.memory_available import GIB
from suite.planning.estimate import DECODER_SHARE, FORWARDS
from suite.planning.memory_needed import ModelShape, memory_of

SHAPES = {
    name: ModelShape(*of_model, n_gram=2 * of_model[4] ** 2 + n_inner**2, n_widest_gram=n_inner**2)
    for name, of_model, n_inner in (
        ("LLaMA-7B", (6_738_415_616, 6_476_005_376, 202_383_360, 262_148_096, 4096, 32000), 11008),
        ("LLaMA-13B", (13_015_864_320, 12_687_769_600, 317_209_600, 327_685_120, 5120, 32000), 13824),
        ("LLaMA-2-70B", (68_976_648_192, 68_451_041_280, 855_654_400, 524_296_192, 8192, 32000), 28672),
    )
}
CALIBRATION = 128 * 2048
WIKITEXT2 = 341_000
"""Number of tokens of its test part, with LLaMA's tokenizer."""
PAPER7 = 5_200_000
"""Approximate number of tokens of the seven zero-shot tasks of papers, including all answers."""
DISK = 3e9
"""Bytes per second from a node's disk, assumed."""
FLOPS = 800e12
"""FLOPs per second of a large bf16 product on one H100, assumed."""
MODELS, METHODS, PATTERNS = 50, 12, 6
PARAMETERS = {30: 7.5e9, 12: 2e9, 6: 13e9, 2: 70e9}
"""Model sizes of a leaderboard of 50 models: number of models -> parameters of each."""
SHARING = 6
"""Number of the twelve methods that start from the same Wanda mask."""
RECORD_BYTES = 0.3e6
"""Size of a record of a 7B model with its items in bytes, about three times that in the gate's baseline."""


def memory_table() -> Iterator[str]:
    """Memory by model and placement, with 16-bit weights."""
    yield "| model | placement | host, GiB | GPU, GiB | scratch, GiB |"
    yield "|---|---|---|---|---|"
    for name, shape in SHAPES.items():
        for weights in ("resident", "onload"):
            found = memory_of(
                shape,
                itemsize=2,
                calibration=CALIBRATION,
                carried=WIKITEXT2,
                reference=WIKITEXT2,
                on_gpu=True,
                weights=weights,  # type: ignore[arg-type]
                prunes=True,
                starts_from_mask=False,
            )
            assert found.device_bytes is not None
            sizes = (found.host_bytes, found.device_bytes, found.scratch_bytes)
            yield f"| {name} | {weights} | {' | '.join(f'{size / GIB:.0f}' for size in sizes)} |"


def seconds_of(tokens: int, passes: int = 1) -> float:
    """Seconds of `passes` passes over `tokens` through a 7B decoder."""
    return passes * 2 * tokens * SHAPES["LLaMA-7B"].n_target_weights / (DECODER_SHARE * FLOPS)


def cell_table() -> Iterator[str]:
    """GPU seconds of each part of one cell."""
    rebuild = FORWARDS["llm-barber"]
    rows = {
        "Wanda": (FORWARDS["wanda"], CALIBRATION),
        "SparseGPT": (FORWARDS["sparsegpt"], CALIBRATION),
        "LLM-Barber from Wanda": (rebuild + FORWARDS["wanda"], CALIBRATION),
        "its own part": (rebuild, CALIBRATION),
        "WikiText-2 with divergence": (1, WIKITEXT2),
        "seven zero-shot tasks": (1, PAPER7),
    }
    yield "| of one cell, 7B | passes x tokens | GPU seconds |"
    yield "|---|---|---|"
    for name, (passes, tokens) in rows.items():
        yield f"| {name} | {passes} x {tokens:,} | {seconds_of(tokens, passes):.0f} |"


def onload_table() -> Iterator[str]:
    """The seven tasks on a 70B model whose layers are read from a disk, once per group of questions."""
    shape = SHAPES["LLaMA-2-70B"]
    groups = ceil(PAPER7 * 2 * shape.hidden_size / MAX_CARRIED_BYTES)
    n_bytes = groups * 2 * shape.n_parameters
    computing = 2 * PAPER7 * shape.n_target_weights / (DECODER_SHARE * FLOPS)
    yield "| seven zero-shot tasks, LLaMA-2-70B onload | |"
    yield "|---|---|"
    yield f"| times all layers are read | {groups} |"
    yield f"| TB | {n_bytes / 1e12:.1f} |"
    yield f"| minutes of reading, at {DISK / 1e9:.0f} GB/s | {n_bytes / DISK / 60:.0f} |"
    yield f"| minutes of computing meanwhile | {computing / 60:.0f} |"


def leaderboard_table() -> Iterator[str]:
    """A leaderboard, and one of ten times the size."""
    size = sum(n * parameters for n, parameters in PARAMETERS.items())
    share = size / MODELS / SHAPES["LLaMA-7B"].n_parameters
    # Magnitude costs nothing, six methods rebuild one mask, the others are assumed to cost as much as
    # SparseGPT.
    wanda = seconds_of(CALIBRATION, FORWARDS["wanda"])
    rebuilt = SHARING * (seconds_of(CALIBRATION, FORWARDS["llm-barber"]) + wanda)
    others = (METHODS - SHARING - 1) * seconds_of(CALIBRATION, FORWARDS["sparsegpt"])
    measured = METHODS * (seconds_of(WIKITEXT2) + seconds_of(PAPER7))
    of_pattern = rebuilt + others + measured
    saved = (SHARING - 1) * wanda / of_pattern
    hours = share * MODELS * PATTERNS * of_pattern / 3600
    cells = MODELS * (METHODS * PATTERNS + 1)
    yield f"| | {MODELS} x {METHODS} x {PATTERNS} | ten times that |"
    yield "|---|---|---|"
    yield f"| cells | {cells:,} | {10 * cells:,} |"
    yield f"| GPU hours | {hours:,.0f} | {10 * hours:,.0f} |"
    yield f"| of them evaluating | {measured / of_pattern:.0%} | {measured / of_pattern:.0%} |"
    yield f"| hours on 8 GPUs | {hours / 8:.0f} | {10 * hours / 8:.0f} |"
    yield f"| hours on 64 GPUs | {hours / 64:.1f} | {10 * hours / 64:.0f} |"
    yield f"| saved by sharing a Wanda mask among {SHARING} methods | {saved:.0%} | {saved:.0%} |"
    yield f"| weights read, each model by one node, TB | {2 * size / 1e12:.1f} | {20 * size / 1e12:.0f} |"
    yield f"| by eight nodes, TB | {16 * size / 1e12:.1f} | {160 * size / 1e12:.0f} |"
    yield f"| results tree, GB | {cells * RECORD_BYTES / 1e9:.1f} | {10 * cells * RECORD_BYTES / 1e9:.0f} |"
    rate = cells / (hours / 64 * 3600)
    yield f"| cells a second to schedule, 64 GPUs | {rate:.2f} | {rate:.2f} |"


def main() -> None:
    """Prints the tables."""
    print(
        "\n\n".join(
            "\n".join(table()) for table in (memory_table, onload_table, cell_table, leaderboard_table)
        )
    )


if __name__ == "__main__":
    main()
