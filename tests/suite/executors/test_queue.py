"""Which worker gets which cell: every cell is run to its end once, whatever is lost on the way."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from suite.cell import Cell
from suite.executors.queue import ATTEMPTS, CellQueue


def cells_of(*sizes):
    """A dense cell, last in the plan, and others, for each of several models."""
    return [
        Cell(model=f"m{m}", method="dense" if n == size - 1 else "wanda", pattern=str(n), dtype="float32")
        for m, size in enumerate(sizes)
        for n in range(size)
    ]


def test_a_worker_stays_with_its_model_and_the_dense_cell_comes_first():
    cells = cells_of(3, 4)
    queue = CellQueue(cells)
    taken = [(worker, cells[queue.take(worker)]) for worker in ("a", "b", "a", "b", "a", "b")]
    assert {cell.model for worker, cell in taken if worker == "a"} == {"m1"}, "the largest group first"
    assert {cell.model for worker, cell in taken if worker == "b"} == {"m0"}
    assert [cell.method for _, cell in taken[:2]] == ["dense", "dense"]
    assert queue.n_waiting == 1
    assert cells[queue.take("b")].model == "m1", "it helps where most is left"
    assert queue.take("a") is None


def test_a_lost_cell_comes_first_again_and_is_given_up_in_the_end():
    queue = CellQueue(cells_of(2))
    for attempt in range(ATTEMPTS):
        worker = f"w{attempt}"
        place = queue.take(worker)
        assert place == 1
        assert queue.lost(worker, place) == (attempt < ATTEMPTS - 1)
    assert (queue.n_waiting, queue.n_running) == (1, 0)
    assert queue.take("new") == 0


def test_a_late_result_of_a_lost_worker_does_not_count_twice():
    queue = CellQueue(cells_of(1))
    place = queue.take("a")
    assert queue.lost("a", place)
    assert queue.take("b") == place
    assert queue.finished(place)
    assert not queue.finished(place)


@settings(max_examples=200)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_every_cell_ends_exactly_once(sizes, data):
    cells = cells_of(*sizes)
    queue = CellQueue(cells)
    ended, tries, running = Counter(), Counter(), {}
    while queue.n_waiting or queue.n_running:
        choices = []
        if queue.n_waiting:
            choices.append("take")
        if running:
            choices += ["finish", "lose"]
        action = data.draw(st.sampled_from(choices))
        if action == "take":
            free = [name for name in ("a", "b", "c") if name not in running]
            if not free:
                action = "finish"
            else:
                worker = data.draw(st.sampled_from(free))
                place = queue.take(worker)
                assert place not in running.values()
                running[worker] = place
                tries[place] += 1
        if action in ("finish", "lose"):
            worker = data.draw(st.sampled_from(sorted(running)))
            place = running.pop(worker)
            if action == "finish":
                assert queue.finished(place)
                ended[place] += 1
            elif not queue.lost(worker, place):
                assert tries[place] == ATTEMPTS
                ended[place] += 1
        assert queue.n_running == len(running)
    assert ended == Counter(range(len(cells)))
