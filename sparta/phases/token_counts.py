"""What iterations come to in tokens: counted from rows, in the same way whatever phases a method has, so that methods can be compared at equal cost."""

from collections.abc import Mapping

from sparta.store.layout import IterationDir
from sparta.store.records import Row
from sparta.store.shards import iter_shards
from sparta.store.stats import TokenCounts

TRAINED = "tokens"
"""The field of a row about a training that counts its tokens."""


def tokens_of(iteration: IterationDir, rows: Mapping[str, type[Row]]) -> TokenCounts:
    """Of all rows of `iteration`. rows: the folders of shards that it consists of, with the type of their rows.

    A row that took several tries has read its prompt with each. What an endpoint does not count is not counted.
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
