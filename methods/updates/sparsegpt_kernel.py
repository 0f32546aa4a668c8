"""SparseGPT's pass through one block of columns as a Triton kernel; `sparsegpt_block` does it in torch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from methods.masks.pattern import SemiStructured, UniformPattern
from methods.updates.sparsegpt_block import panel_width

ROWS = 16
"""Rows per program. The pass is a chain of short steps whose latency matters more than their work, and rows
are independent, so few rows per program are best: 4,096 rows make 256 programs for 132 multiprocessors.
`tl.dot` does not support fewer rows."""
WARPS = 4
"""Warps per program: with a panel of 32 columns each thread has 4 weights, so that all of them stay in
registers and each row belongs to one warp."""
CHUNK = 32
"""Number of columns of earlier panels whose errors are applied by one product."""


def solve_block(
    weight: Tensor, keep: Tensor, factor: Tensor, pattern: UniformPattern | None, start: int, end: int
) -> Tensor:
    """Goes through the columns `start` to `end` of all rows in one launch; see `sparsegpt_block.solve_block`.

    Args:
        weight: fp32 `[out, in]`, contiguous; the block's columns are changed in place, zero where pruned.
        keep: bool `[out, in]`, contiguous; the block's columns are an output for N:M, and an input otherwise.
        factor: U, fp32 `[in, in]`, contiguous, upper triangular.
        pattern: what to remove; None if the mask is given.
        start: the first column.
        end: the column after the last one.

    Returns:
        The columns' errors (w - q) / U_jj, fp32 `[out, end - start]`.
    """
    n_rows, width = weight.shape[0], end - start
    errors = torch.empty((n_rows, width), dtype=weight.dtype, device=weight.device)
    panel = panel_width(pattern)
    padded = max(16, triton.next_power_of_2(panel))
    group, n_pruned = (pattern.m, pattern.m - pattern.n) if isinstance(pattern, SemiStructured) else (0, 0)
    with torch.cuda.device_of(weight):  # type: ignore[no-untyped-call]
        _walk[(triton.cdiv(n_rows, ROWS),)](
            weight[:, start:end],
            keep[:, start:end].view(torch.uint8),
            factor[start:end, start:end],
            errors,
            n_rows,
            width,
            weight.stride(0),
            keep.stride(0),
            factor.stride(0),
            GROUP=group,
            N_PRUNED=n_pruned,
            PANEL=panel,
            PADDED=padded,
            ROWS=ROWS,
            CHUNK=CHUNK,
            num_warps=WARPS if padded <= 64 else 2 * WARPS,
            num_stages=1,
            # Round products and differences separately, as the interpreter does, so that tests of ties
            # that run in the interpreter are valid for GPUs too.
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
) -> None:
    """One program: takes `ROWS` rows through the whole block, panel by panel.

    A panel `[ROWS, PADDED]` stays in registers while its columns are processed one by one. Registers cannot
    be indexed, so a column is extracted by a masked sum along each row (exact, because all else is zero). The
    cost grows with the width: for panels of 32 it is a quarter of that for a block of 128. Before its own
    columns, a panel applies the errors of the panels before it, by products in full fp32.

    Divisions are `tl.div_rn`, rounded according to IEEE 754, because `/` is approximate in fp32.

    Args:
        weight_ptr: the block's columns, fp32 `[n_rows, width]`.
        keep_ptr: their mask, uint8 `[n_rows, width]`.
        factor_ptr: their part of U, fp32 `[width, width]`.
        errors_ptr: fp32 `[n_rows, width]`, contiguous.
        n_rows: number of rows of the weight.
        width: number of columns of the block.
        weight_stride: row stride of the weight.
        keep_stride: row stride of the mask.
        factor_stride: row stride of U.
        GROUP: M; 0 = unstructured.
        N_PRUNED: M - N.
        PANEL: columns of a panel; a multiple of M.
        PADDED: `PANEL` rounded up to a power of two, at least 16.
        ROWS: rows per program.
        CHUNK: see the constant `CHUNK`.
    """
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    columns = tl.arange(0, PADDED)
    there = (rows < n_rows)[:, None]
    for left in range(0, width, PANEL):
        length = tl.minimum(width - left, PANEL)
        valid = there & (columns < length)[None, :]
        of_weight = weight_ptr + rows[:, None] * weight_stride + (left + columns)[None, :]
        of_keep = keep_ptr + rows[:, None] * keep_stride + (left + columns)[None, :]
        of_errors = errors_ptr + rows[:, None] * width + (left + columns)[None, :]
        of_factor = factor_ptr + (left + columns)[None, :]

        weight = tl.load(of_weight, mask=valid, other=0.0)
        for done in range(0, left, CHUNK):
            earlier = done + tl.arange(0, CHUNK)
            error = tl.load(
                errors_ptr + rows[:, None] * width + earlier[None, :],
                mask=there & (earlier < left)[None, :],
                other=0.0,
            )
            u = tl.load(
                of_factor + earlier[:, None] * factor_stride,
                mask=(earlier < left)[:, None] & (columns < length)[None, :],
                other=0.0,
            )
            weight -= tl.dot(error, u, input_precision="ieee")

        pivots = tl.load(
            of_factor + (left + columns)[None, :] * factor_stride,
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
                # Each row chooses its mask of the group by the weights as updated so far.
                score = tl.div_rn(weight, tl.broadcast_to(pivots, [ROWS, PADDED]))
                score = score * score
                rank = tl.zeros([ROWS, PADDED], dtype=tl.int32)
                for rival in range(first, past):
                    other = tl.sum(tl.where(columns[None, :] == rival, score, 0.0), axis=1)[:, None]
                    # In a tie the earlier one is removed first, so it ranks lower.
                    lower = (other < score) | ((other == score) & (columns[None, :] > rival))
                    rank += lower.to(tl.int32)
                group = (columns >= first) & (columns < past)
                keep = tl.where(group[None, :], rank >= N_PRUNED, keep)
            for column in range(first, past):
                u = tl.load(
                    of_factor + (left + column) * factor_stride,
                    mask=((columns > column) & (columns < length))[None, :],
                    other=0.0,
                )
                # A surviving weight has no error.
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
        # Other threads read these errors in the next panel.
        tl.debug_barrier()


__all__ = ["solve_block"]
