"""SparseGPT's walk through one block of columns as a Triton kernel; its plain twin is in methods.columns."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from methods.columns import panel_width
from methods.pattern import SemiStructured, UniformPattern

ROWS = 16
"""Rows of a program. Rows are independent, and the walk is a chain of short steps in which latency counts more
than work; so few rows make many programs (256 of 4,096 rows, for 132 multiprocessors), and the smallest tile
that `tl.dot` takes gives each of 128 threads four weights."""
WARPS = 4
CHUNK = 32
"""Errors of earlier panels that are brought in by one product."""


def solve_block(
    weight: Tensor, keep: Tensor, factor: Tensor, pattern: UniformPattern, start: int, end: int
) -> Tensor:
    """Goes through the columns `start` to `end` of all rows in one launch; see `methods.columns.solve_block`.

    Args:
        weight: fp32 `[out, in]`, contiguous; the block's columns are changed in place, zero where pruned.
        keep: bool `[out, in]`, contiguous; the block's columns are given when unstructured, filled in for N:M.
        factor: U, fp32 `[in, in]`, upper triangular, rows contiguous or transposed.
        pattern: what to remove.
        start: the first column.
        end: the column after the last one.

    Returns:
        The columns' errors (w - q) / U_jj, fp32 `[out, end - start]`.
    """
    n_rows, width = weight.shape[0], end - start
    errors = torch.empty((n_rows, width), dtype=weight.dtype, device=weight.device)
    panel = panel_width(pattern)
    padded = max(16, triton.next_power_of_2(panel))
    semi_structured = isinstance(pattern, SemiStructured)
    with torch.cuda.device_of(weight):
        _walk[(triton.cdiv(n_rows, ROWS),)](
            weight,
            keep.view(torch.uint8),
            factor,
            errors,
            n_rows,
            start,
            width,
            weight.stride(0),
            keep.stride(0),
            factor.stride(0),
            GROUP=pattern.m if semi_structured else 0,
            N_PRUNED=pattern.n_pruned(pattern.m) if semi_structured else 0,
            PANEL=panel,
            PADDED=padded,
            ROWS=ROWS,
            CHUNK=CHUNK,
            num_warps=WARPS if padded <= 64 else 2 * WARPS,
            num_stages=1,
            # Products and differences are rounded one by one, as the twin rounds them: what is a tie there is
            # one here.
            enable_fp_fusion=False,
        )
    return errors


@triton.jit  # type: ignore[untyped-decorator]
def _walk(
    weight_ptr: tl.tensor,
    keep_ptr: tl.tensor,
    factor_ptr: tl.tensor,
    errors_ptr: tl.tensor,
    n_rows: tl.tensor,
    start: tl.tensor,
    width: tl.tensor,
    weight_stride: tl.tensor,
    keep_stride: tl.tensor,
    factor_stride: tl.tensor,
    GROUP: tl.constexpr,
    N_PRUNED: tl.constexpr,
    PANEL: tl.constexpr,
    PADDED: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """One program: `ROWS` rows through the whole block, panel by panel.

    A panel `[ROWS, PADDED]` sits in registers while its columns are walked one by one. There is no indexing of
    registers, so a column is taken out by a masked sum along its row, whose cost grows with the width of what
    is held: a panel of 32 costs a quarter of a block of 128. The panel first makes up for the errors of all
    earlier panels, in products on the plain fp32 units.
    """
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    columns = tl.arange(0, PADDED)
    there = (rows < n_rows)[:, None]
    for left in range(0, width, PANEL):
        length = tl.minimum(width - left, PANEL)
        valid = there & (columns < length)[None, :]
        of_weight = weight_ptr + rows[:, None] * weight_stride + (start + left + columns)[None, :]
        of_keep = keep_ptr + rows[:, None] * keep_stride + (start + left + columns)[None, :]
        of_errors = errors_ptr + rows[:, None] * width + (left + columns)[None, :]
        of_factor = factor_ptr + (start + left + columns)[None, :]

        weight = tl.load(of_weight, mask=valid, other=0.0)
        for done in range(0, left, CHUNK):
            earlier = done + tl.arange(0, CHUNK)
            error = tl.load(
                errors_ptr + rows[:, None] * width + earlier[None, :],
                mask=there & (earlier < left)[None, :],
                other=0.0,
            )
            u = tl.load(
                of_factor + (start + earlier)[:, None] * factor_stride,
                mask=(earlier < left)[:, None] & (columns < length)[None, :],
                other=0.0,
            )
            weight -= tl.dot(error, u, input_precision="ieee")

        pivots = tl.load(
            of_factor + (start + left + columns)[None, :] * factor_stride,
            mask=(columns < length)[None, :],
            other=1.0,
        )
        errors = tl.zeros([ROWS, PADDED], dtype=tl.float32)
        if GROUP == 0:
            keep = tl.load(of_keep, mask=valid, other=1) != 0
        else:
            keep = tl.full([ROWS, PADDED], 1, dtype=tl.int1)
        for first in range(0, length, GROUP if GROUP > 0 else PANEL):
            past = tl.minimum(first + (GROUP if GROUP > 0 else PANEL), length)
            if GROUP > 0:
                score = tl.div_rn(weight, tl.broadcast_to(pivots, [ROWS, PADDED]))
                score = score * score
                rank = tl.zeros([ROWS, PADDED], dtype=tl.int32)
                for rival in range(first, past):
                    other = tl.sum(tl.where(columns[None, :] == rival, score, 0.0), axis=1)[:, None]
                    # Of a tie the earlier one goes first, so it ranks lower.
                    lower = (other < score) | ((other == score) & (columns[None, :] > rival))
                    rank += lower.to(tl.int32)
                group = (columns >= first) & (columns < past)
                keep = tl.where(group[None, :], rank >= N_PRUNED, keep)
            for column in range(first, past):
                u = tl.load(
                    of_factor + (start + left + column) * factor_stride,
                    mask=((columns > column) & (columns < length))[None, :],
                    other=0.0,
                )
                # A surviving weight makes no error.
                current = (columns == column)[None, :]
                lost = tl.sum(tl.where(current & (keep == 0), weight, 0.0), axis=1)
                pivot = tl.sum(tl.where(current, pivots, 0.0), axis=1)
                error = tl.div_rn(lost, tl.broadcast_to(pivot, [ROWS]))[:, None]
                weight -= error * u
                errors = tl.where(current, error, errors)

        tl.store(of_weight, tl.where(keep, weight, 0.0), mask=valid)
        tl.store(of_errors, errors, mask=valid)
        if GROUP > 0:
            tl.store(of_keep, keep.to(tl.uint8), mask=valid)
        # The next panel reads these errors in other threads.
        tl.debug_barrier()


__all__ = ["solve_block"]
