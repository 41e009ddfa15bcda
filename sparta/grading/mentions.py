"""Finds the mentions of choices in a text, and their context: rejected, named together with others, or at the beginning of a line."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from sparta.grading.choice_language import BOX, CLOSING, OPENING, TEX, Language

_REACH = 150
"""Characters before a mention that are searched for its context."""
_TEXT = 600
"""Maximum characters of a choice's text between two joined mentions."""

# Before a mention: what rejects it.
_REJECTED_BEFORE = re.compile(
    rf"""(?:\b(?:not|no|nor|neither|except|than|without|avoid|excludes?|eliminates?|rejects?|rules?\s+out)|n['’]t)\s+
    (?:\w+\s+)?{OPENING}*\Z""",
    re.IGNORECASE | re.VERBOSE,
)

# After a mention: what rejects it, what it is the subject of.
_NO_GOOD = r"(?:wrong|incorrect|false|invalid|not\b|out\b|ruled|unlikely|inappropriate|contraindicated|eliminated|excluded)"
_REJECTED_AFTER = re.compile(
    rf"""{CLOSING}*(?:
    [.,:]?\s*(?:(?P<several>are|were)\s+|(?:is|was|seems|would\s+be)\s+|(?:is|was|would)n['’]t|(?-i:cannot|can['’]t|could\s+not)\b)
        \s*(?:(?:clearly|also|both|all|therefore|probably)\s+)*(?:{_NO_GOOD}|\b(?=be\b)|(?<=t)\b)
    |\s*[,:(–-]?\s*(?:which\s+|that\s+)?(?:violates|fails|contradicts|breaks|does(?:\s+not|n['’]t))\b
    |\s*[.,:(–-]\s*(?:which\s+is\s+)?(?:wrong|incorrect|invalid|not\s+(?:correct|right|valid|possible))\s*(?:[.,:;!)–-]|\b(?:because|since|as)\b|\Z))""",
    re.IGNORECASE | re.VERBOSE,
)
_STATEMENT = re.compile(
    rf"{CLOSING}*\s+(?:is|are|was|were|would|can|cannot|could|do|does|has|have)\b", re.IGNORECASE
)
_MARKED = re.compile(rf"{CLOSING}|[.:](?=\s|\Z|(?-i:[A-Z]))")

# Between two mentions: what joins them.
_ALSO = r"(?:[,;/]|,?\s*\b(?:and(?:/or)?|or|as\s+well\s+as|plus)\b)\s*(?:(?:possibly|perhaps|maybe|also|even)\s+)?"
_NAMED = rf"(?:(?:option|choice)\s+)?(?:{OPENING}|{TEX}|{BOX})*"
_JOINED = re.compile(rf"{CLOSING}*[.:]?\s*\(?{_ALSO}{_NAMED}", re.IGNORECASE)
_BESIDE = re.compile(rf"(?:{CLOSING}+[.:]?|[.:]|(?=[ \t]+\())[ \t]*{_NAMED}", re.IGNORECASE)
_WITH_TEXT = re.compile(rf"[^\n]*?{CLOSING}*\s*{_ALSO}{_NAMED}", re.IGNORECASE)

_BEGINNING = re.compile(
    rf"[ \t]*(?:[-•+*#>]+[ \t]+)?{OPENING}*(?:(?:option|choice|answer)[ ]+)?{OPENING}*\Z", re.IGNORECASE
)
_NEXT = re.compile(r"[^\n]*\n")
_NEXT_LINE = re.compile(r"[^\n]*(?:\n[ \t\r]*)+(?<=\n)")
_OFFERED = re.compile(r"(?:[(\[]|\b(?:option|choice)[ ]+)[*_`\"'“‘]*\Z", re.IGNORECASE)


@dataclass(frozen=True)
class Mention:
    """A mention of a name. index: among all mentions. before: the text before it, up to `_REACH` characters. line: the part of `before` on
    its line. small: whether it is a small letter.
    """

    index: int
    name: str
    start: int
    end: int
    before: str
    line: str
    small: bool


class Mentions:
    """The mentions of names in a text. rejected, joined: for each, whether it is rejected, and whether it is named together with the next."""

    def __init__(self, text: str, language: Language) -> None:
        self.text = text
        self.language = language
        self.all = list(self._found())
        self.rejected = self._rejections()
        self.joined = [self._is_joined(*pair) for pair in pairwise(self.all)] + [False] * bool(self.all)

    def _found(self) -> Iterator[Mention]:
        spelled = {name.lower(): name for name in self.language.names}
        for index, match in enumerate(self.language.name.finditer(self.text)):
            start = match.start()
            before = self.text[max(0, start - _REACH) : start]
            name = spelled[match[0].lower()]
            small = self.language.letters and match[0] != name
            yield Mention(index, name, start, match.end(), before, before.rpartition("\n")[2], small)

    def _rejections(self) -> list[bool]:
        """Whether each mention is rejected; in `A, B and C are wrong`, all three are."""
        rejected = []
        following: Mention | None = None
        all_of_them = False
        for place in reversed(self.all):
            after = _REJECTED_AFTER.match(self.text, place.end)
            linked = following and any(
                between.fullmatch(self.text, place.end, following.start) for between in (_JOINED, _BESIDE)
            )
            all_of_them = bool(after and after["several"]) or bool(linked and all_of_them)
            rejected.append(bool(after) or all_of_them)
            following = place
        return rejected[::-1]

    def _is_joined(self, place: Mention, following: Mention) -> bool:
        """Whether the mention and the next are named together, and there is no statement about the next alone."""
        if (
            following.name == place.name
            or following.start - place.end > _REACH
            or self.rejected[following.index]
            or self.is_subject(following)
        ):
            return False
        if joined := _JOINED.fullmatch(self.text, place.end, following.start):
            by_word = self.language.letters and not following.small and re.search(r"\w", joined[0])
            return bool(by_word or self.language.linked.match(self.text, following.end))
        beside = _BESIDE.fullmatch(self.text, place.end, following.start)
        return bool(beside and _MARKED.match(self.text, following.end))

    def counts(self, place: Mention) -> bool:
        """Whether the text after it fits the name of a choice, and is not just the next word of a sentence."""
        return self.language.linked.match(self.text, place.end) is not None

    def is_subject(self, place: Mention) -> bool:
        """Whether it is the subject of a statement: `B is ...`."""
        return _STATEMENT.match(self.text, place.end) is not None

    def is_marked(self, place: Mention) -> bool:
        """Whether it is in brackets or markdown, or followed by a dot or colon."""
        return place.before.endswith(("*", "(", "[")) or _MARKED.match(self.text, place.end) is not None

    def is_several(self, place: Mention) -> bool:
        """Whether others are named together with it, with the choices' texts or without them."""
        if self.joined[place.index]:
            return True
        mark = _MARKED.match(self.text, place.end)
        for other in self.all[place.index + 1 :]:
            if not mark or other.start - place.end > _TEXT or "\n" in self.text[place.end : other.start]:
                break
            if self._is_marked_like(place, other):
                return _WITH_TEXT.fullmatch(self.text, mark.end(), other.start) is not None
        return False

    def is_second(self, place: Mention) -> bool:
        return place.index > 0 and self.joined[place.index - 1]

    def follows(self, place: Mention) -> bool:
        last = self.all[place.index - 1] if place.index else None
        return last is not None and _JOINED.fullmatch(self.text, last.end, place.start) is not None

    def _is_marked_like(self, place: Mention, other: Mention) -> bool:
        mark = self.text[place.end : place.end + 1]
        return (
            other.name != place.name
            and mark in {".", ")", ":"}
            and re.match(rf"{re.escape(mark)}(?:\s|\Z)", self.text[other.end : other.end + 2]) is not None
            and not self.rejected[other.index]
        )

    def is_repeated(self, first: Mention) -> bool:
        """Whether another name on the line has the same mark, so that the line repeats the choices."""
        until = self.text.find("\n", first.end)
        return any(
            self._is_marked_like(first, other)
            for other in self.all[first.index + 1 :]
            if until < 0 or other.start < until
        )

    def is_listed(self, place: Mention, blank_lines: bool) -> bool:
        """Whether the next line begins with another name. blank_lines: skip blank lines."""
        following = (_NEXT_LINE if blank_lines else _NEXT).match(self.text, place.end)
        for other in self.all[place.index + 1 :]:
            if not following or other.start - len(other.line) > following.end():
                break
            if other.start >= following.end() and self.begins(other):
                return other.name != place.name
        return False

    def lines_between(self, place: Mention, other: Mention) -> bool:
        """Whether the lines between have any text."""
        return bool("".join(self.text[place.end : other.start].split("\n")[1:-1]).strip())

    def begins(self, place: Mention) -> bool:
        """Whether a line begins with the name and a mark after it."""
        ended = self.language.ended.match(self.text, place.end)
        if not ended or not _BEGINNING.fullmatch(place.line) or self.rejected[place.index]:
            return False
        mark = ended["close"] + self.text[ended.end() : ended.end() + 1]
        shown = not place.small or mark[:1] in {".", ")", "]", ":"} or re.search(r"\w", place.line)
        return bool(shown) and not (place.name == "I" and mark[:1] == ",")

    def is_offered(self, place: Mention) -> bool:
        """Whether it is named as a choice: a letter in brackets or after `option`, or a word that ends a phrase."""
        if place.small or _REJECTED_BEFORE.search(place.before) or self.rejected[place.index]:
            return False
        if self.language.letters:
            return bool(_OFFERED.search(place.before)) and self.counts(place)
        return bool(self.language.ended.match(self.text, place.end))
