"""What a model thinks before it answers: told from the answer here, once, and nowhere else.

Judges, graders and comparisons get the answer alone. Thinking that does not end is no answer.
"""

import re
from dataclasses import dataclass
from typing import Literal

State = Literal["none", "free", "opened", "closed"]
"""How a prompt leaves it to the model to think.

none: its template knows of no thinking. free: the model begins to think, or does not. opened: the prompt ends within a thought, which the
model only has to end. closed: the prompt holds an empty thought, so that the model answers at once.
"""


@dataclass(frozen=True)
class Tags:
    """How thinking is marked.

    open, close: what stands before and behind a thought as a model writes it. begins, ends: regular expressions for the same in all their forms;
    "": as they are spelled. empty: what stands for no thought at all; None: both tags. own_lines: whether a thought stands on lines of its own.
    over: what ends the answer, where a model does not stop behind it.
    """

    open: str
    close: str
    begins: str = ""
    ends: str = ""
    empty: str | None = None
    own_lines: bool = True
    over: str = ""

    def opening(self, text: str) -> re.Match[str] | None:
        """The tag that `text` begins with, white space aside."""
        return re.compile(rf"\s*(?:{self.begins or re.escape(self.open)})").match(text)

    def closing(self, text: str) -> re.Match[str] | None:
        """The first tag in `text` that ends a thought."""
        return re.compile(self.ends or re.escape(self.close)).search(text)

    def thought(self, thinking: str, opened: bool) -> str:
        """`thinking` with the tags around it that a model writes, up to where the answer begins. opened: behind a prompt that has the first tag."""
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
"""Tags of models that are published: of Qwen3 and R1, of gpt-oss, Magistral, Seed-OSS, Command A, OpenThinker and others."""


def tags_in(template: str) -> Tags | None:
    """The tags that a chat template knows; None where it knows none."""
    return next((tags for tags in KNOWN if (tags.empty or tags.close) in template), None)


@dataclass(frozen=True)
class SplitReply:
    """What a model wrote, told apart. ended: False where it never came to an answer, which is then empty."""

    thinking: str
    answer: str
    ended: bool = True


def split(text: str, tags: Tags | None, opened: bool) -> SplitReply:
    """`text` as thinking and answer. opened: whether it goes on with a thought that its prompt has begun.

    A closing tag alone ends thinking. Text without tags is an answer, as it is. What is told apart loses the white space around it.
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
