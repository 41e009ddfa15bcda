"""Groups requests into batches that share forward passes, in order. Pure: no torch."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from sparta.engines.base import ModelRef, Request, Sampling


@dataclass(frozen=True)
class BatchRow:
    """A request ready for a batch.

    ids: the model's input: prompt, prefix and the continuation, if there is one, without its last token. limit: most new tokens, 0
    if nothing is decoded. logits: the cost of the logits that are kept, in tokens (see `logits_in_tokens`).
    """

    request: Request
    ids: tuple[int, ...]
    limit: int
    logits: int = 0


@dataclass(frozen=True)
class Batch:
    """Rows with the same decoding settings, for models with the same weights."""

    rows: tuple[BatchRow, ...]

    @property
    def models(self) -> tuple[ModelRef, ...]:
        """The models of the rows, each once."""
        return tuple(dict.fromkeys(row.request.model for row in self.rows))

    @property
    def model(self) -> ModelRef:
        """One of `models`; they all have the same weights."""
        return self.rows[0].request.model

    @property
    def sampling(self) -> Sampling:
        """The decoding settings that the rows share, except max_new_tokens, for which each row has its `limit`."""
        return self.rows[0].request.sampling

    @property
    def width(self) -> int:
        """Tokens of the longest row."""
        return max(len(row.ids) for row in self.rows)

    @property
    def limit(self) -> int:
        return max(row.limit for row in self.rows)


def batches(rows: Iterable[BatchRow], batch_tokens: int) -> Iterator[Batch]:
    """Batches of at most `batch_tokens` tokens: rows times the sum of padded prompt, new tokens and kept logits; a single row may exceed this.

    All rows for the same weights are consecutive, even for several members. A model's longest rows come first, so that a batch too large
    for memory fails early.
    """
    groups: dict[Hashable, dict[Hashable, list[BatchRow]]] = {}
    for row in rows:
        request, sampling = row.request, row.request.sampling
        decoding = (
            sampling.temperature,
            sampling.top_p,
            sampling.top_k,
            sampling.stop,
            request.labels,
            request.pattern,
            bool(request.continuation),
        )
        groups.setdefault(request.model.weights, {}).setdefault(decoding, []).append(row)
    for by_decoding in groups.values():
        for group in by_decoding.values():
            yield from (Batch(tuple(part)) for part in _cut(group, batch_tokens))


def _cut(rows: Sequence[BatchRow], batch_tokens: int) -> Iterator[list[BatchRow]]:
    part: list[BatchRow] = []
    width = limit = logits = 0
    for row in sorted(rows, key=lambda row: len(row.ids), reverse=True):
        wider, longer, more = max(width, len(row.ids)), max(limit, row.limit), max(logits, row.logits)
        if part and (len(part) + 1) * (wider + longer + more) > batch_tokens:
            yield part
            part, wider, longer, more = [], len(row.ids), row.limit, row.logits
        part.append(row)
        width, limit, logits = wider, longer, more
    if part:
        yield part
