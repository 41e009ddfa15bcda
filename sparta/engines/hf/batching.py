"""From requests to batches: which rows share a forward pass, in which order. Pure: no torch."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from sparta.engines.base import ModelRef, Request, Sampling


@dataclass(frozen=True)
class BatchRow:
    """A request ready for a batch.

    ids: what the model is fed: prompt, prefix and, where a continuation is weighed, that without its last token. limit: most new tokens, 0
    where nothing is decoded. logits: what those that are kept of it count for, in tokens.
    """

    request: Request
    ids: tuple[int, ...]
    limit: int
    logits: int = 0


@dataclass(frozen=True)
class Batch:
    """Rows of one way of decoding, for models with the same weights."""

    rows: tuple[BatchRow, ...]

    @property
    def models(self) -> tuple[ModelRef, ...]:
        """Those that the rows are for, each once."""
        return tuple(dict.fromkeys(row.request.model for row in self.rows))

    @property
    def model(self) -> ModelRef:
        """One of them: each computes what all do."""
        return self.rows[0].request.model

    @property
    def sampling(self) -> Sampling:
        """The decoding that the rows share; max_new_tokens and limits are the rows' own."""
        return self.rows[0].request.sampling

    @property
    def width(self) -> int:
        """Tokens of the longest row."""
        return max(len(row.ids) for row in self.rows)

    @property
    def limit(self) -> int:
        return max(row.limit for row in self.rows)


def batches(rows: Iterable[BatchRow], batch_tokens: int) -> Iterator[Batch]:
    """Batches of at most `batch_tokens` tokens: rows times padded prompt, new tokens and kept logits; one row may be more.

    The same weights come once, however many members have them. The longest rows of a model come first: what does not fit into memory fails early.
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
    for ways in groups.values():
        for group in ways.values():
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
