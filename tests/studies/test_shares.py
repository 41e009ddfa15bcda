"""GPUs are divided equally, never beyond the limit, and no cell starves."""

from hypothesis import given
from hypothesis import strategies as st

from sparta.studies.shares import shares


def test_six_cells_divide_eight_gpus() -> None:
    assert shares(8, [1] * 6) == [1, 1, 1, 1, 2, 2]


def test_more_cells_than_gpus_wait() -> None:
    assert shares(3, [1] * 10) == [1, 1, 1]
    assert shares(0, [1, 1]) == []


def test_one_cell_gets_all() -> None:
    assert shares(8, [1]) == [8]


def test_a_share_is_a_multiple_of_what_a_task_needs() -> None:
    assert shares(8, [4, 4]) == [4, 4]
    assert shares(7, [2, 2]) == [2, 4]


def test_a_wide_cell_is_not_overtaken() -> None:
    assert shares(3, [4, 1, 1]) == []


@given(st.integers(0, 64), st.lists(st.integers(1, 8), max_size=40))
def test_shares_fit_in_what_is_free_and_each_is_enough(free: int, needs: list[int]) -> None:
    given = shares(free, needs)
    assert sum(given) <= free
    assert all(share >= need and share % need == 0 for share, need in zip(given, needs, strict=False))
    # Whoever waits does not fit.
    assert len(given) == len(needs) or needs[len(given)] > free - sum(given)
