"""Separates a model's thinking from its answer. This is the only place that does so.

Judges, graders and comparisons get only the answer. If the thinking does not end, there is no answer.
"""

import re
from dataclasses import dataclass
from typing import Literal

State = Literal["none", "free", "opened", "closed"]
"""Whether and how a prompt lets the model think.

none: its template has no thinking. free: the model decides whether to think. opened: the prompt ends inside a thought, which the model
continues. closed: the prompt ends with an empty thought, so that the model answers at once.
"""


@dataclass(frozen=True)
class Tags:
    """The tags around thinking.

    open, close: the tags before and after a thought, as a model writes them. begins, ends: regular expressions that match all variants of
    the tags; "": the tags literally. empty: how a model writes an empty thought; None: both tags. own_lines: whether the tags are on their
    own lines. over: a marker that ends the answer if the model continues after it; "": none.
    """

    open: str
    close: str
    begins: str = ""
    ends: str = ""
    empty: str | None = None
    own_lines: bool = True
    over: str = ""

    def opening(self, text: str) -> re.Match[str] | None:
        """The opening tag at the beginning of `text`, after optional white space."""
        return re.compile(rf"\s*(?:{self.begins or re.escape(self.open)})").match(text)

    def closing(self, text: str) -> re.Match[str] | None:
        """The first closing tag in `text`."""
        return re.compile(self.ends or re.escape(self.close)).search(text)

    def thought(self, thinking: str, opened: bool) -> str:
        """`thinking` with its tags, up to where the answer begins. opened: the prompt already has the opening tag."""
        if not thinking and self.empty is not None and not opened:
            return self.empty
        line = "\n" * self.own_lines
        before = "" if opened else self.open + line
        return f"{before}{thinking}{line}{self.close}{2 * line}"


THINK = Tags("<think>", "</think>")
CHANNELS = Tags(
    "<|channel|>analysis<|message|>",
    "<|end|><|start|>assistant<|channel|>final<|message|>",
    begins=r"<\|channel\|>(?!final)(?:[\w ]*<\|message\|>)?",
    ends=r"(?:<\|end\|>)?(?:<\|start\|>assistant)?<\|channel\|>final<\|message\|>",
    empty="<|channel|>final<|message|>",
    own_lines=False,
    over="<|end|>",
)
KNOWN = (
    THINK,
    CHANNELS,
    Tags("[THINK]", "[/THINK]"),
    Tags("<seed:think>", "</seed:think>"),
    Tags("<|START_THINKING|>", "<|END_THINKING|>"),
    Tags("<|begin_of_thought|>", "<|end_of_thought|>"),
    Tags("<thinking>", "</thinking>"),
    Tags("<thought>", "</thought>"),
    Tags("◁think▷", "◁/think▷"),
)
"""Tags of published models: Qwen3 and R1, gpt-oss, Magistral, Seed-OSS, Command A, OpenThinker and others."""


def tags_in(template: str) -> Tags | None:
    """The tags used in a chat template; None if it uses none."""
    return next((tags for tags in KNOWN if (tags.empty or tags.close) in template), None)


@dataclass(frozen=True)
class SplitReply:
    """A model's text, split. ended: False if the thinking does not end; the answer is then empty."""

    thinking: str
    answer: str
    ended: bool = True


def split(text: str, tags: Tags | None, opened: bool) -> SplitReply:
    """Split `text` into thinking and answer. opened: whether the prompt ends inside a thought.

    A closing tag without an opening one also ends thinking. Text without tags is all answer, unchanged; otherwise both parts are stripped
    of white space.
    """
    if tags is None or not text.strip():
        return SplitReply("", text)
    thoughts: list[str] = []
    rest, inside = text, opened
    while True:
        if first := tags.opening(rest):
            inside, rest = True, rest[first.end() :]
        last = tags.closing(rest) if inside or not thoughts else None
        if last is None:
            break
        thoughts.append(rest[: last.start()].strip())
        inside, rest = False, rest[last.end() :]
    if not thoughts and not inside:
        return SplitReply("", text)
    if inside:
        return SplitReply("\n".join((*thoughts, rest.strip())).strip(), "", ended=False)
    answer = rest.partition(tags.over)[0] if tags.over else rest
    return SplitReply("\n".join(filter(None, thoughts)), answer.strip())
