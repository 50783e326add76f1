"""The order of samples, and the loader that keeps it."""

import threading

import numpy as np
import pytest

from handgraph.training.data import prepared_ahead, sample_indices


def test_an_epoch_is_a_permutation_and_the_next_another() -> None:
    first, second = np.arange(100), np.arange(100, 200)
    a = sample_indices(first, 100, seed=0, endless=False)
    b = sample_indices(second, 100, seed=0, endless=False)
    assert sorted(a) == sorted(b) == list(range(100))
    assert (a != b).any()
    assert (a != sample_indices(first, 100, seed=1, endless=False)).any()


def test_any_part_of_the_order_can_be_asked_for_alone() -> None:
    whole = sample_indices(np.arange(70), 10, seed=3, endless=False)
    part = sample_indices(np.arange(25, 43), 10, seed=3, endless=False)  # over two epochs' ends
    assert (whole[25:43] == part).all()


def test_an_endless_stream_is_its_own_order() -> None:
    assert (sample_indices(np.arange(95, 105), 100, seed=0, endless=True) == np.arange(95, 105)).all()


@pytest.mark.parametrize("burst", [False, True])
def test_order_is_kept_and_no_more_than_asked_is_made_in_advance(burst: bool) -> None:
    made, gates = [], {key: threading.Event() for key in range(6)}

    def prepare(key: int) -> int:
        if key == 0 and not burst:
            assert gates[1].wait(10)  # the second is ready before the first
        gates[key].set()
        made.append(key)
        return 10 * key

    loader = prepared_ahead(prepare, range(6), threads=2, ahead=3, burst=burst)
    assert next(loader) == 0
    assert len(made) <= 3
    assert list(loader) == [10, 20, 30, 40, 50]


def test_an_error_comes_where_its_result_would_and_no_thread_is_left() -> None:
    def prepare(key: int) -> int:
        if key == 2:
            raise ValueError("bad sample")
        return key

    loader = prepared_ahead(prepare, range(1000), threads=2, ahead=8)
    assert [next(loader), next(loader)] == [0, 1]
    with pytest.raises(ValueError, match="bad sample"):
        next(loader)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]
