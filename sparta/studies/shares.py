"""How the GPUs (or cores) of a study are divided among cells that run side by side."""

from collections.abc import Sequence


def shares(free: int, needs: Sequence[int]) -> list[int]:
    """The shares of cells that may start now, for the first of the waiting cells, in order.

    free: GPUs that no running cell has. needs: of each waiting cell, the GPUs of its widest task; a share is a multiple of it. Every cell gets as
    many as an equal division among all that wait leaves for it, at least what it needs. A cell that does not fit yet is not overtaken, so that
    none starves.
    """
    found: list[int] = []
    for place, need in enumerate(needs):
        if need > free:
            break
        share = max(need, free // (len(needs) - place) // need * need)
        found.append(share)
        free -= share
    return found
