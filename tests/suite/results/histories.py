"""Random histories of a results tree, cut at random moments, and what must hold after every cut."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast
from unittest import mock

from suite.cell import Cell
from suite.results.records.record import Record
from suite.results.records.state import check_side_file
from suite.results.records.store import SAMPLES_SUFFIX, ResultStore
from suite.storage.files import FileLayer
from suite.storage.leftovers import ABANDONED_AFTER_S, PREFIX, temporary_name
from tests.suite.results.crashes import Disk, Layer, Process, age
from tests.suite.results.examples import CODE, make_cell, make_failed, make_record

CELLS = tuple(
    make_cell(model=model, pattern=pattern, settings={}, perplexity=())
    for model, pattern in (("org/a", "0.5"), ("org/a", "2:4"), ("org/b", "0.5"))
)
SHORT: dict[str, Any] = {"phases": (), "metrics": (), "windows": (), "modules": ()}
_HOST = temporary_name().removeprefix(PREFIX).partition("-")[0]


class DamageError(AssertionError):
    """A cut left what it must not leave."""


class Unsynced(FileLayer):
    """Ordinary files, without the wait for the disk."""

    def sync(self, file: Any) -> None:
        pass

    def sync_folder(self, folder: Path) -> None:
        pass


@dataclass
class Items:
    """Stands for a frame of items: all the store asks of one is its length and its bytes."""

    mark: str

    def __len__(self) -> int:
        return 1

    def to_parquet(self, buffer: IO[bytes], index: bool) -> None:
        buffer.write(f"the items of {self.mark}".encode() * 3)


@dataclass(eq=False)
class Write:
    """One record on its way into the tree: `created` is its mark."""

    record: Record
    with_items: bool
    began: int = -1
    ended: int | None = None
    returned: bool = False

    @property
    def is_complete(self) -> bool:
        return self.record.status == "complete"

    def store_in(self, store: ResultStore) -> None:
        store.write(self.record, cast(Any, Items(self.record.created)) if self.with_items else None)


@dataclass
class Seen:
    """What was cut, and what was found afterwards."""

    cuts: Counter[str] = field(default_factory=Counter)
    """By kind of cut and operation it came before: `kill, rename`."""
    found: Counter[str] = field(default_factory=Counter)
    """By kind of cut, the record of a cell being written: the `new`, the `old`, or `none` before a first."""
    reboots: int = 0
    killed: int = 0
    """Processes that died while the rest went on."""


MakeStore = Callable[[Path, FileLayer], ResultStore]


def right_store(root: Path, files: FileLayer) -> ResultStore:
    """The store as it is."""
    return ResultStore(root, files=files)


class History:
    """Some writes and sweeps, alone and at once, killed and not, from an empty folder.

    Args:
        seed: decides everything.
        folder: an empty folder to work in.
        seen: what is counted.
        make_store: the store under test.
        without: file operations that are left out.
        cut_share: how often a step is cut.
    """

    def __init__(
        self,
        seed: int,
        folder: Path,
        seen: Seen,
        *,
        make_store: MakeStore = right_store,
        without: frozenset[str] = frozenset(),
        cut_share: float = 0.5,
    ) -> None:
        self.seed = seed
        self.seen = seen
        self._chance = random.Random(seed)
        self._folder = folder
        self._make_store = make_store
        self._without = without
        self._cut_share = cut_share
        self._n_disks = 0
        self._now = 0
        self._numbers = iter(range(1000, 10**9))
        self._running: list[Process] = []
        self._turn: Process | None = None
        self._writes: list[Write] = []
        self._disk = Disk(self._new_base())

    def run(self, n_episodes: int = 8) -> None:
        """Plays it to its end.

        Raises:
            DamageError: after some cut something is lost, unreadable or in the way.
        """
        with self._names_and_numbers():
            for _ in range(n_episodes):
                self._episode()
            self._cut("at rest")

    def _episode(self) -> None:
        chance = self._chance
        cell = chance.choice(CELLS)
        kind = chance.choices(
            ["write", "two of one cell", "two cells", "write and sweep", "sweep"], [5, 2, 1, 2, 1]
        )[0]
        works: list[Callable[[Layer], None]] = []
        if kind != "sweep":
            works.append(self._write(cell))
        if kind == "two of one cell":
            works.append(self._write(cell))
        if kind == "two cells":
            works.append(self._write(chance.choice(CELLS)))
        if "sweep" in kind:
            works.append(lambda files: self._sweep(files))
        disk = self._disk
        self._running = [
            Process(next(self._numbers), lambda pause: Layer(disk, pause, chance, self._without), work)
            for work in works
        ]
        doomed = chance.choice(self._running) if chance.random() < 0.3 else None
        last_step = chance.randint(1, 24)
        while alive := [process for process in self._running if process.is_alive]:
            process = chance.choice(alive)
            if chance.random() < self._cut_share and self._cut(process.next_step or "", may_reboot=True):
                return
            if process is doomed:
                last_step -= 1
                if last_step == 0:
                    self._kill(process)
                    self.seen.killed += 1
                    continue
            self._now += 1
            self._turn = process
            process.step()
            if process.error is not None:
                raise self._damage("no cut", f"{process.error!r}")
        self._running = []

    def _write(self, cell: Cell) -> Callable[[Layer], None]:
        make = make_record if self._chance.random() < 0.7 else make_failed
        write = Write(
            make(cell, created=f"write {next(self._numbers)}", **SHORT), self._chance.random() < 0.7
        )
        disk = self._disk

        def work(files: Layer) -> None:
            write.began = self._now
            self._writes.append(write)
            try:
                write.store_in(self._make_store(disk.base / "results", files))
                write.returned = True
            finally:
                write.ended = self._now

        return work

    def _sweep(self, files: Layer) -> None:
        if self._chance.random() < 0.7:  # a day goes by, which no write takes
            held = {path for process in self._running if process.is_alive for path in process.files.made}
            for path in self._disk.base.rglob("*"):
                if path.is_file() and path not in held:
                    age(path, 2 * ABANDONED_AFTER_S)
        self._make_store(self._disk.base / "results", files).sweep()

    def _kill(self, process: Process) -> None:
        self._now += 1
        process.kill()

    def _cut(self, step: str, *, may_reboot: bool = False) -> bool:
        """Cuts here, on a copy; whether the history goes on from that copy."""
        chance = self._chance
        power = chance.random() < 0.6
        cut = "power" if power else "kill"
        after = self._disk.after_cut(self._new_base(), chance, power=power)
        self.seen.cuts[f"{cut}, {step}"] += 1
        reboots = power and may_reboot and chance.random() < 0.03
        running, self._running = self._running, []  # for those who ask, none is alive
        self._check(after.base / "results", cut, f"{cut} before {step!r}")
        if not reboots:
            self._running = running
            shutil.rmtree(after.base)
            return False
        self.seen.reboots += 1
        for process in running:
            self._kill(process)
        shutil.rmtree(after.base)
        shutil.rmtree(self._disk.base)
        self._disk = Disk(after.base, after.top)
        self._writes = [
            Write(held.record, held.record.side_file is not None, self._now, self._now, True)
            for stored in ResultStore(self._disk.base / "results").records().records
            for held in (stored, stored.failure)
            if held is not None
        ]
        self._now += 1
        return True

    def _check(self, root: Path, cut: str, when: str) -> None:
        store = self._make_store(root, Unsynced())
        contents = store.records()
        if contents.unreadable:
            raise self._damage(when, f"unreadable: {contents.unreadable[0]}")
        found: dict[tuple[int, bool], Record] = {}
        needed: set[Path] = set()
        for stored in contents.records:
            for held in filter(None, (stored, stored.failure)):
                path, record = held.path, held.record
                found[CELLS.index(record.cell), record.status == "complete"] = record
                problem = check_side_file(path, record)
                if problem is not None:
                    raise self._damage(when, f"side file: {problem}")
                needed |= {path} | ({path.with_name(record.side_file.name)} if record.side_file else set())
        for place, cell in enumerate(CELLS):
            finished, failed = found.get((place, True)), found.get((place, False))
            self._check_finished(cell, finished, cut, when)
            self._check_failed(cell, failed, cut, when)
            kind = store.status_of(cell, CODE).kind
            if kind != ("complete" if finished else "failed" if failed else "missing"):
                raise self._damage(when, f"{cell.label} is {kind}")
        self._check_sweep(store, needed, when)
        for cell in CELLS:
            Write(make_record(cell, created="the next", **SHORT), with_items=True).store_in(store)
        after = store.records()
        standing = [stored for stored in after.records if check_side_file(stored.path, stored.record) is None]
        created = [stored.record.created for stored in standing if stored.failure is None]
        if after.unreadable or created != ["the next"] * len(CELLS):
            raise self._damage(when, f"the next writes left {after}")

    def _check_finished(self, cell: Cell, record: Record | None, cut: str, when: str) -> None:
        writes = [write for write in self._writes if write.is_complete and write.record.cell == cell]
        if record is None:
            if any(write.returned for write in writes):
                raise self._damage(when, f"lost: the finished record of {cell.label}")
        elif not any(_may_be(write, record, writes) for write in writes):
            raise self._damage(when, f"lost: {cell.label} is back at {record.created}")
        under_way = {write.record.created for write in writes if write.ended is None}
        if under_way:
            which = "none" if record is None else "new" if record.created in under_way else "old"
            self.seen.found[f"{cut}, {which}"] += 1

    def _check_failed(self, cell: Cell, record: Record | None, cut: str, when: str) -> None:
        of_cell = [write for write in self._writes if write.record.cell == cell]
        failures = [write for write in of_cell if not write.is_complete]
        successes = [write for write in of_cell if write.is_complete]
        if record is None:
            for failure in failures:
                overcome = any(s.ended is None or s.ended >= failure.began for s in successes)
                if failure.returned and not overcome:
                    raise self._damage(when, f"lost: the failed record of {cell.label}")
            return
        # That a success took a failure away need not have reached the disk: it stands beside the numbers.
        over = successes if cut == "kill" else []
        if not any(_may_be(write, record, failures + over) for write in failures):
            raise self._damage(when, f"the failure {record.created} of {cell.label} came back")

    def _check_sweep(self, store: ResultStore, needed: set[Path], when: str) -> None:
        """Half-written files go at once, side files without a record after a day, and nothing else."""

        def present() -> set[Path]:
            return {path for path in store.root.rglob("*") if path.is_file()}

        before = present()
        temporary = {path for path in before if path.name.startswith(PREFIX)}
        if set(store.sweep()) != temporary or present() != before - temporary:
            raise self._damage(when, "sweep took other than the half-written files")
        for path in present():
            age(path, 2 * ABANDONED_AFTER_S)
        store.sweep()
        if present() != needed:
            raise self._damage(when, f"sweep left {present() ^ needed}")
        if any(not path.name.endswith(SAMPLES_SUFFIX) for path in before - temporary - needed):
            raise self._damage(when, "something else than a side file was left behind")

    def _damage(self, when: str, what: str) -> DamageError:
        return DamageError(f"seed {self.seed}, {when}: {what}")

    def _new_base(self) -> Path:
        self._n_disks += 1
        return self._folder / f"{self.seed}-{self._n_disks}"

    @contextmanager
    def _names_and_numbers(self) -> Iterator[None]:
        """Tokens come from the seed, and a process is alive while it is one of those running."""

        def token(n_bytes: int) -> str:
            return self._chance.randbytes(n_bytes).hex()

        def name() -> str:
            return f"{PREFIX}{_HOST}-{self._turn.number if self._turn and self._running else 1}-{token(4)}"

        def alive(number: int) -> bool:
            return any(process.number == number and process.is_alive for process in self._running)

        with (
            mock.patch("suite.results.records.store.secrets.token_hex", token),
            mock.patch("suite.storage.files.temporary_name", name),
            mock.patch("psutil.pid_exists", alive),
        ):
            try:
                yield
            finally:
                for process in self._running:
                    process.kill()


def _may_be(write: Write, record: Record, others: list[Write]) -> bool:
    """Whether `record` is `write`'s, and none that returned began after it ended."""
    return write.record.created == record.created and not any(
        write.ended is not None and other.returned and other.began > write.ended for other in others
    )


def simulate(n_cuts: int, folder: Path, *, seed: int = 0, **changes: Any) -> Seen:
    """Plays histories until so many cuts were simulated, and says what was seen.

    Raises:
        DamageError: see `History.run`; its message has the seed.
    """
    seen = Seen()
    while seen.cuts.total() < n_cuts:
        base = folder / str(seed)
        base.mkdir()
        History(seed, base, seen, **changes).run()
        shutil.rmtree(base)
        seed += 1
    return seen
