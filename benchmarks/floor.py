"""The floors of a method on a model: the time of its necessary work at the rates of this machine.

    floor = forwards x the decoder's own forward
          + products beside the forwards / the rate of a product
          + bytes of the passes over the weights / the rate of a copy

There are two floors, because work can be counted in two ways (`benchmarks.work.Work`): the usual one counts a
backward as two forwards, the strict one counts its products. The forward is measured, not computed, so it
includes the model's elementwise work. The roofline is given too: every product of the strict count, including
those of the forwards, at the rate of a large square one. It shows how far the model's own forward is from the
limit of the hardware.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from benchmarks.machine import MachineRates
from benchmarks.work import Count, Work, Workload, forward_flops, traffic_bytes


@dataclass(frozen=True)
class Floor:
    """Seconds of a floor, split by kind of work.

    Attributes:
        forwards: the model's own forwards, and work that counts as forwards.
        activation_gradients: products from a block's output back to its targets.
        weight_gradients: gradients of weights.
        gram: X^T X.
        solve: factorizations and column updates.
        traffic: passes over the weights.
    """

    forwards: float
    activation_gradients: float
    weight_gradients: float
    gram: float
    solve: float
    traffic: float

    @property
    def seconds(self) -> float:
        """The floor in seconds."""
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, float]:
        """Seconds by name; their sum is the floor."""
        return asdict(self)


@dataclass(frozen=True)
class Floors:
    """Both floors of a method, and the roofline.

    Attributes:
        usual: floor of the usual count.
        strict: floor of the work that cannot be avoided. It may be higher than the usual one if the backend
            has to form gradients of weights in fp32 and the model has another dtype.
        roofline: seconds of all products of the strict count at the rates of square ones.
    """

    usual: Floor
    strict: Floor
    roofline: float


def floors(work: Work, load: Workload, rates: MachineRates) -> Floors:
    """Computes the floors of `work` on `load` at `rates`."""
    strict = _floor(work.strict, work, load, rates)
    return Floors(
        usual=_floor(work.usual, work, load, rates),
        strict=strict,
        roofline=work.strict.forwards * forward_flops(load) / rates.model_flops
        + (strict.activation_gradients + strict.weight_gradients + strict.gram + strict.solve),
    )


def _floor(count: Count, work: Work, load: Workload, rates: MachineRates) -> Floor:
    products = count.products
    return Floor(
        forwards=count.forwards * forward_seconds(load, rates),
        activation_gradients=products.activation_gradients / rates.model_flops,
        weight_gradients=products.weight_gradients / rates.accumulated_flops,
        gram=products.gram / rates.accumulated_flops,
        solve=products.solve / rates.fp32_flops,
        traffic=traffic_bytes(work, load) / rates.bytes_per_second,
    )


def forward_seconds(load: Workload, rates: MachineRates) -> float:
    """Seconds of one forward of all calibration tokens through all decoder layers."""
    return load.n_tokens * len(load.layers) / rates.layer_tokens_per_second


def mean_floors(before: Floors, after: Floors) -> Floors:
    """Mean of the floors measured before and after a prune, because a machine's speed drifts."""
    return Floors(
        _mean(before.usual, after.usual),
        _mean(before.strict, after.strict),
        (before.roofline + after.roofline) / 2,
    )


def _mean(before: Floor, after: Floor) -> Floor:
    second = after.parts
    return Floor(**{name: (first + second[name]) / 2 for name, first in before.parts.items()})


__all__ = ["Floor", "Floors", "floors", "forward_seconds", "mean_floors"]
