"""Sets of sampled answers to one item: of the models of a pool, and of one model (section 5, Table 2)."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sparta.store.layout import parse_checkpoint
from sparta.store.records import SampledAnswer

Texts = Mapping[str, Mapping[str, Mapping[int, str]]]
"""By checkpoint, item and number: the text of each sampled answer; empty where there is none."""


@dataclass(frozen=True)
class AnswerSet:
    """Answers to one item. entry: an iteration (`number` is then that of the sample of each model), or a checkpoint. size: answers, the empty ones
    included. texts: the ones with text, in the order of the pool or of their numbers.
    """

    entry: str
    item_id: str
    number: int
    size: int
    texts: tuple[str, ...]


def text_of(row: SampledAnswer) -> str:
    """What the model answered; empty if its thinking never ended, or if the prompt left no room."""
    return row.text if row.answered and row.text.strip() else ""


def sets_of_pool(texts: Texts, iteration: str, models: Sequence[str], numbers: int) -> Iterator[AnswerSet]:
    """Of each item and each number below `numbers`: the answers with this number, one of each of `models`, as in the paper's Table 2 (Sparta).

    iteration: as in checkpoint names, iter_05. A set that lacks an answer is left out.
    """
    by_model = [texts.get(f"{iteration}-{model}", {}) for model in models]
    for item_id in by_model[0] if by_model else ():
        for number in range(numbers):
            found = [of_items.get(item_id, {}).get(number) for of_items in by_model]
            if None not in found:
                yield _answer_set(iteration, item_id, number, [text for text in found if text is not None])


def sets_of_model(texts: Texts, checkpoint: str, size: int) -> Iterator[AnswerSet]:
    """Of each item: the first `size` answers of one model, as in the paper's Table 2 (baselines). A set that lacks an answer is left out."""
    for item_id, of_item in texts.get(checkpoint, {}).items():
        found = [of_item[number] for number in range(size) if number in of_item]
        if len(found) == size:
            yield _answer_set(checkpoint, item_id, 0, found)


def by_checkpoint(rows: Iterator[SampledAnswer]) -> Texts:
    """The texts of `rows`."""
    found: dict[str, dict[str, dict[int, str]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        found[row.checkpoint][row.item_id][row.number] = text_of(row)
    return found


def is_of_pool(entry: str) -> bool:
    """Whether `entry` names an iteration, not a checkpoint."""
    return not parse_checkpoint(entry)[1]


def _answer_set(entry: str, item_id: str, number: int, texts: Sequence[str]) -> AnswerSet:
    return AnswerSet(entry, item_id, number, len(texts), tuple(text for text in texts if text))
