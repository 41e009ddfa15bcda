"""Token counts of iterations, from their rows: the same for all methods and phases, so that methods can be compared at equal cost."""

from collections.abc import Mapping

from sparta.store.layout import IterationDir
from sparta.store.records import Row
from sparta.store.shards import iter_shards
from sparta.store.stats import TokenCounts

TRAINED = "tokens"
"""The field of a training's row with its tokens."""


def tokens_of(iteration: IterationDir, rows: Mapping[str, type[Row]]) -> TokenCounts:
    """The tokens of all rows of `iteration`. rows: the row type of each of its folders of shards.

    Every try reads the prompt again. Tokens that an endpoint does not report are not counted.
    """
    generated = read = trained = 0
    for name, of in rows.items():
        for row in iter_shards(iteration.root / name, of):
            generated += getattr(row, "new_tokens", 0)
            read += getattr(row, "prompt_tokens", 0) * getattr(row, "tries", 1) + getattr(
                row, "read_tokens", 0
            )
            trained += getattr(row, TRAINED, 0)
    return TokenCounts(generated, read, trained)
