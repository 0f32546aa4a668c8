"""The floor of a method on a model: the seconds that its work takes at the rates of this machine.

    floor = forwards x the decoder's own forward
          + products beyond the forwards / the rate of a product
          + bytes of the passes over the weights / the rate of a copy

The forward is measured, not computed: it holds the model's elementwise work. Beside it stands the plain
roofline, every product at the rate of a large square one, which tells how far the model's own forward is from
what the hardware can do.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from benchmarks.machine import MachineRates
from benchmarks.work import Work, Workload, traffic_bytes


@dataclass(frozen=True)
class Floor:
    """Seconds by what they are spent on.

    Attributes:
        forwards: in the model's own forwards, and in what counts as one.
        weight_gradients: what the gradients of weights take beyond their forward-equivalent, where the
            backend has to form them in fp32 and the model is in another type.
        gram: in X^T X.
        solve: in factorizations and column updates.
        traffic: in passes over the weights.
        roofline: all products at the rate of a square one; no part of the sum.
    """

    forwards: float
    weight_gradients: float
    gram: float
    solve: float
    traffic: float
    roofline: float

    @property
    def seconds(self) -> float:
        """The floor."""
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, float]:
        """Seconds by name; they add up to the floor."""
        return {name: seconds for name, seconds in asdict(self).items() if name != "roofline"}


def floor(work: Work, load: Workload, rates: MachineRates) -> Floor:
    """The floor of `work` on `load` at `rates`."""
    extra, everything = work.extra, work.all
    return Floor(
        forwards=work.forwards * forward_seconds(load, rates),
        weight_gradients=extra.weight_gradients * (1 / rates.accumulated_flops - 1 / rates.model_flops),
        gram=extra.gram / rates.accumulated_flops,
        solve=extra.solve / rates.fp32_flops,
        traffic=traffic_bytes(work, load) / rates.bytes_per_second,
        roofline=everything.model / rates.model_flops
        + (everything.weight_gradients + everything.gram) / rates.accumulated_flops
        + everything.solve / rates.fp32_flops,
    )


def forward_seconds(load: Workload, rates: MachineRates) -> float:
    """One forward of all calibration tokens through all decoder layers."""
    return load.n_tokens * len(load.layers) / rates.layer_tokens_per_second


def mean_floor(before: Floor, after: Floor) -> Floor:
    """Halfway between two, measured before and after what is held against them: a machine's speed drifts."""
    first, second = asdict(before), asdict(after)
    return Floor(**{name: (first[name] + second[name]) / 2 for name in first})


__all__ = ["Floor", "floor", "forward_seconds", "mean_floor"]
