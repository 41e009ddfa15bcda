"""NormAd: is the behaviour in a story acceptable in a country? Three tasks, which differ in the given information about the country's norms.

Country: its name; Value: its name and the relevant value; RoT: the rule of thumb. All three show the background on etiquette, and use the
same split by story ids, which the paper's authors shuffled with their own seed.
"""

import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from sparta.tasks.base import Item, Metric, Split
from sparta.tasks.dataset import (
    Dataset,
    HubSplit,
    LocalFile,
    Rows,
    Source,
    Splits,
    user_turn,
    with_another_end,
)
from sparta.tasks.splits import shuffled

PAPER = (2370, 132, 132)
STORIES = 2633
WORDS = ("yes", "no", "neutral")
NOTE = "2,633 stories are published, the paper's numbers add up to 2,634"
PROMPT = (
    "Read what is known of the etiquette, then the story, and judge what the person in the story does.\n\nBackground:\n{background}\n\n"
    "{context}\nStory: {story}\n\n"
)
_WORDS = "Yes if it is acceptable, No if it is not, Neutral if neither can be said."
ONE_WORD = f"Answer with one word: {_WORDS}"
REASON_FIRST = f"First give your reason in two or three sentences. Then answer with one word on a line of its own: {_WORDS}"
"""Replaces ONE_WORD in combats."""

_AUTHORS = re.compile(
    r"(?P<background>.*)\n\nCountry: (?P<country>[^\n]*)\.\nPlease justify: (?P<story>.*)\.\n Choose from:[^\n]*",
    re.DOTALL,
)
_VALUE = re.compile(r".*\\nValue: (?P<value>.*?)\n\n.*", re.DOTALL)
_HEADING = re.compile(r"#+ *(?P<heading>[^\n]+)")


@dataclass(frozen=True)
class Story:
    """A row. label: one of WORDS. value, rule: the value and the rule of thumb, if they are known."""

    story_id: int
    background: str
    country: str
    story: str
    label: str
    value: str | None = None
    rule: str | None = None

    def __post_init__(self) -> None:
        if self.label not in WORDS:
            raise ValueError(f"it is labelled {self.label!r}, none of {', '.join(WORDS)}")


def split_ids() -> tuple[list[int], list[int]]:
    """Ids of the stories for training and for scoring, split as by the paper's authors."""
    # Not one of our streams, because it must reproduce the shuffle behind their files.
    order = list(range(STORIES))
    random.Random(42).shuffle(order)
    scored = STORIES // 10
    return order[scored:], order[:scored]


def _from_table(rows: Iterator[dict[str, Any]]) -> Iterator[Story]:
    """The stories in NormAd's published table. The hub returns null for an empty cell."""
    for row in rows:
        yield Story(
            int(row["ID"]),
            row["Background"].strip(),
            row["Country"].strip(),
            row["Story"].strip(),
            row["Gold Label"].strip().lower(),
            (row["Value"] or "").strip(),
            (row["Rule-of-Thumb"] or "").strip(),
        )


def _from_authors(rows: Rows) -> Iterator[Story]:
    """The stories in the paper's authors' file, with values from a second file that covers some of the stories."""
    values: dict[int, str] = {}
    for row in rows("values"):
        if found := _VALUE.fullmatch(row["question"]):
            values[int(row["id"])] = found["value"].strip()
    for row in rows("stories"):
        parts = _AUTHORS.fullmatch(row["instruction"])
        if parts is None:
            raise ValueError("its background, country and story are not where they are known to be")
        yield Story(
            int(row["id"]),
            parts["background"].strip(),
            parts["country"].strip(),
            parts["story"].strip(),
            row["label"].strip().lower(),
            values.get(int(row["id"])),
        )


def _country(story: Story) -> str:
    return f"Country: {story.country}"


def _value(story: Story) -> str | None:
    return story.value and f"{_country(story)}\nValue: {story.value}"


def _rule(story: Story) -> str | None:
    return story.rule and f"Rule of thumb: {story.rule}"


def _splits(context: Callable[[Story], str | None], unknown: str, stories: Iterator[Story]) -> Splits:
    """context: the given information about the norm; None if it is not known, which is counted as `unknown`."""
    items: dict[int, Item] = {}
    found = list(stories)
    for story in found:
        told = context(story)
        heading = _HEADING.match(story.background)
        if told:
            items[story.story_id] = Item(
                f"story-{story.story_id}",
                user_turn(
                    PROMPT.format(background=story.background, context=told, story=story.story) + ONE_WORD
                ),
                reference=story.label.capitalize(),
                answer=story.label,
                level=heading["heading"].strip() if heading else None,
            )

    def those(ids: list[int]) -> tuple[Item, ...] | None:
        return tuple(items[story_id] for story_id in ids if story_id in items) or None

    train, scored = split_ids()
    order = shuffled(scored, "normad", "halves")
    validation, test = order[: PAPER[1]], order[PAPER[1] :]
    lost = len(found) - len(items)
    return Splits(those(train), those(validation), those(test), {unknown: lost} if lost else {}, (NOTE,))


def _read_local(context: Callable[[Story], str | None], unknown: str, rows: Rows) -> Splits:
    table = list(_from_table(rows("table")))
    return _splits(context, unknown, iter(table) if table else _from_authors(rows))


def _read_hub(context: Callable[[Story], str | None], unknown: str, rows: Rows) -> Splits:
    return _splits(context, unknown, _from_table(rows("table")))


def _with_a_reason(item: Item) -> Item:
    return with_another_end(item, ONE_WORD, REASON_FIRST)


def _verdict(item: Item, text: str) -> dict[str, float]:
    from sparta.grading.letters import same_word

    same = same_word(item.answer or "", text, WORDS)
    return {} if same is None else {"accuracy": float(same)}


_TABLE = LocalFile(
    "normad_etiquette_final_data.csv",
    origin="github.com/Akhila-Yerukola/NormAd: normad_etiquette_final_data.csv",
)


def _dataset(
    name: str, title: str, context: Callable[[Story], str | None], unknown: str, lacks: str
) -> Dataset:
    missing: Mapping[Split, str] = dict.fromkeys(
        ("train", "validation", "test"),
        f"{lacks}; put {_TABLE.described} below the folder, or leave out --from to get it from the hub",
    )
    return Dataset(
        name=name,
        title=title,
        metrics=(Metric("accuracy"),),
        chat_template=True,
        max_new_tokens=256,
        grader=_verdict,
        combat=_with_a_reason,
        local=Source(
            {
                "table": _TABLE,
                # The third part of the stories, `valid`, is a part of `test`.
                "stories": LocalFile(
                    "country_dataset.json",
                    origin="github.com/yurujiang2003/sparta: data/culture/country_dataset.json",
                    parts=("train", "test"),
                ),
                "values": LocalFile(
                    "normad_value.json",
                    origin="github.com/BunsenFeng/model_swarm: data/eval/normad_value.json",
                    parts=("dev", "test"),
                ),
            },
            partial(_read_local, context, unknown),
            frozenset({"table", "stories", "values"}),
        ),
        hub=Source(
            {"table": HubSplit("akhilayerukola/NormAd", None, "train")},
            partial(_read_hub, context, unknown),
        ),
        licence="CC BY 4.0",
        paper=PAPER,
        missing=missing,
    )


COUNTRY = _dataset("normad_country", "NormAd Country", _country, "country not known", "there are no stories")
VALUE = _dataset(
    "normad_value", "NormAd Value", _value, "value not known", "there are no stories, or no values to them"
)
ROT = _dataset("normad_rot", "NormAd RoT", _rule, "rule of thumb not known", "no rules of thumb are known")
