"""Copies decoder layers from their storage to the device, one layer ahead of the one in use."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.base import LayerStorage
from methods.structure.decoder import DecoderLayer


@dataclass(frozen=True)
class OnDevice:
    """Copies of one layer's tensors on the device, by name inside the layer.

    Attributes:
        layer: the layer.
        tensors: all its parameters and persistent buffers.
        dense: the saved dense parameters of its targets; None if they were not requested.
        stamp: the storage's stamp of the layer when it was fetched.
        arrived: event that the GPU reaches when the copies are complete; None on the CPU.
    """

    layer: DecoderLayer
    tensors: Mapping[str, Tensor]
    dense: Mapping[str, Tensor] | None
    stamp: object
    arrived: torch.cuda.Event | None

    def wait(self) -> None:
        """Makes the current GPU stream wait for the copies; returns at once."""
        if self.arrived is not None:
            stream = torch.cuda.current_stream(next(iter(self.tensors.values())).device)
            stream.wait_event(self.arrived)
            for tensor in [*self.tensors.values(), *(self.dense or {}).values()]:
                # They were allocated for the stream that copied them; this one uses them too.
                tensor.record_stream(stream)


class Prefetch:
    """Fetches the next layer in a thread while the current one is in use, never more than one ahead.

    An error in the thread is raised by the `take` of its layer.
    """

    def __init__(self, storage: LayerStorage, device: torch.device) -> None:
        """Fetches nothing yet."""
        self._storage = storage
        self._device = device
        self._stream = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._thread: ThreadPoolExecutor | None = None
        self._ahead: tuple[DecoderLayer, bool, Future[OnDevice]] | None = None

    def take(self, layer: DecoderLayer, *, dense: bool) -> OnDevice:
        """Returns `layer` on the device, with the values that its storage has now.

        Args:
            layer: the layer to fetch, unless it was fetched ahead.
            dense: whether to fetch the saved dense weights of its targets too.
        """
        found = self._fetched(layer, dense) or self._submit(layer, dense).result()
        found.wait()
        return found

    def start(self, layer: DecoderLayer, *, dense: bool) -> None:
        """Begins to fetch `layer`, which has to be the next one that is taken."""
        self._ahead = (layer, dense, self._submit(layer, dense))

    def give_back(self, untouched: OnDevice) -> None:
        """Keeps a layer that was taken and not changed, for the next `take`."""
        ready: Future[OnDevice] = Future()
        ready.set_result(untouched)
        self._ahead = (untouched.layer, untouched.dense is not None, ready)

    def close(self) -> None:
        """Stops the thread, and waits until it has ended."""
        self._ahead = None
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)
            self._thread = None

    def _fetched(self, layer: DecoderLayer, dense: bool) -> OnDevice | None:
        """Returns what was fetched ahead; None if it is another layer, or was stored again since."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return None
        if ahead[:2] != (layer, dense):
            wait([ahead[2]])
            return None
        found = ahead[2].result()
        # A method that runs inside another one uses the same storage, and may have stored the layer.
        return found if found.stamp == self._storage.stamp(layer) else None

    def _submit(self, layer: DecoderLayer, dense: bool) -> Future[OnDevice]:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="prunebench-prefetch")
        return self._thread.submit(self._fetch, layer, dense)

    def _fetch(self, layer: DecoderLayer, dense: bool) -> OnDevice:
        if self._device.type == "cuda":
            # A new thread's current device is the first GPU, whose context pinned memory would be taken from.
            torch.cuda.set_device(self._device)
        stamp = self._storage.stamp(layer)
        pinned = self._stream is not None
        tensors = self._sent(self._storage.fetch(layer, pinned=pinned))
        remembered = self._sent(self._storage.dense(layer, pinned=pinned)) if dense else None
        arrived = None
        if self._stream is not None:
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record(self._stream)
        return OnDevice(layer, tensors, remembered, stamp, arrived)

    def _sent(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self._stream is None:
            return {name: value.to(self._device) for name, value in tensors.items()}
        with torch.cuda.stream(self._stream):
            return {name: value.to(self._device, non_blocking=True) for name, value in tensors.items()}


__all__ = ["OnDevice", "Prefetch"]
