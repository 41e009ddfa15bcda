r"""The letter of a choice, or the word of a verdict, that an answer decides for.

Read in three stages; where one finds something, no later one is asked:

1. Declarations, of which the last one counts: `the answer is B`, `Answer: (B)`, `\boxed{B}`, `I choose B`, `it is B`, `so B`, `not A but B`,
   `the choice that satisfies all constraints is B`, `the most likely diagnosis is B. text`; `B is correct` and `B satisfies all constraints`,
   where B begins its clause; lines that are nothing but `B`; of words, also a last sentence that is nothing but one.
2. The beginning: `B. text`, `B) text`, `B, ...`, `B because ...`, `Option B: text`. What is said below of the other choices undoes nothing.
3. A single mention: of letters, the one in brackets or behind `option`; of words, the one that ends a phrase.

In all of them, what is negated or called wrong is not meant (`the answer is not A`, `if the answer is A`, `A, which violates ...`), and several
are a decision for none: `A or B`, `A. text; B. text`, `(A) (B)`, or choices that are listed: the next line begins with another letter, or
lines go through the choices from the first on, with something below each.

A mention counts only where punctuation, the end of a line or a word like `because` follows. So `A patient with ...`, `B cells`, `No one ...`
and letters within words and abbreviations (`U.S.A.`) are none, and neither is `C. difficile`. A small letter counts in stage 1 behind `answer is`, `I choose`, `\boxed`
and their like, or as the whole text, and in stage 2 with a mark or `option` (`b)`). A choice's text without its letter is not read: what the
choices say is not known here.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

_REACH = 150
"""Characters before a mention that can bear on it."""
_TEXT = 600
"""Characters of a choice's text that can stand between two that are joined."""

_OPENING = r"""[*_`"'“”‘’(\[{$]"""
_CLOSING = r"""[*_`"'“”‘’)\]}$]"""
_TEX = r"\\(?:text|textbf|textit|mathrm|mathbf|mathsf|bf|rm)\b"
_BOX = r"\\(?:boxed|fbox)\s*"

# Before a mention: what declares it.
_FAILS = r"\b(?:not|never|violat\w+|fail\w*|contradict\w*|break\w*|wrong|incorrect|except)\b|n['’]t\b"
_CLAUSE = rf"(?:that|which|among|from|given|in|based|with|satisfying)\s(?:(?!{_FAILS})[^.:\n]){{1,80}}?"
_CUE = rf"""\b(?:answer|choice|option|selection|response|letter|pick|verdict|decision|judge?ment|conclusion)\b[*_"'”’]*
        (?:\s+(?:choice|option|letter|here|(?:to|for)\s+(?:the|this)\s+question)\b)?(?:\s+{_CLAUSE})?[*_"'”’]*
        \s*(?:\b(?:is|was|would\s+be|should\s+be|must\s+be|remains)\b\s*:?|[:=：>]|->|→)
    |\b(?:I|we)(?:['’](?:d|ll)|\s+(?:would|will|shall|should|must|have\s+to|therefore|thus|then|also))*
        \s+(?:choose|chose|select|pick|answer|vote\s+for|(?:would\s+)?go\s+with|say)\b:?
    |(?:(?<=[.!?\n])|\A)\s*(?:choose|select|pick)\b
    |{_BOX}(?=\{{)"""
# Weaker ones: what stands behind them may also be the beginning of another statement.
_HINT = r"\b(?:it|this|that)(?:\s+(?:is|must\s+be|should\s+be|would\s+be)|['’]s)\b|\b(?:therefore|thus|hence|so)\b,?"
_WORD_HINT = r"|\b(?:is|was|as)(?:\s+(?:considered|deemed|seen|described))?(?:\s+as)?\b"
# Behind these, only a letter with a mark is one of a choice.
_BEST = rf"\b(?:most\s+(?:likely|appropriate|probable)|best|final)\s(?:(?!{_FAILS})[^.:\n]){{1,80}}?\s(?:is|was|would\s+be)\b\s*:?"
_UNTIL = rf"""(?:[\s:<>]|{_OPENING}|{_TEX}|\b(?:the|my|correct|right|best|option|choice|letter|answer|alternative
    |definitely|clearly|therefore|thus|indeed|probably|likely|most|simply|just|actually|also|then|obviously|certainly|considered|socially)\b)*"""

# Before a mention or its cue: what undoes it.
_SUPPOSED = re.compile(
    r"\b(?:wrong|incorrect|if|whether|why|unless)\s+(?:that\s+)?(?:(?:the|my|an?)\s+)?(?:(?:correct|right|best|final)\s+)*\Z",
    re.IGNORECASE,
)
_REJECTED_BEFORE = re.compile(
    rf"""(?:\b(?:not|no|nor|neither|except|than|without|avoid|excludes?|eliminates?|rejects?|rules?\s+out)|n['’]t)\s+
    (?:\w+\s+)?{_OPENING}*\Z""",
    re.IGNORECASE | re.VERBOSE,
)

# Behind a mention: what undoes it, what it is the subject of, what calls it right.
_NO_GOOD = r"(?:wrong|incorrect|false|invalid|not\b|out\b|ruled|unlikely|inappropriate|contraindicated|eliminated|excluded)"
_REJECTED_AFTER = re.compile(
    rf"""{_CLOSING}*(?:
    [.,:]?\s*(?:(?P<several>are|were)\s+|(?:is|was|seems|would\s+be)\s+|(?:is|was|would)n['’]t|(?-i:cannot|can['’]t|could\s+not)\b)
        \s*(?:(?:clearly|also|both|all|therefore|probably)\s+)*(?:{_NO_GOOD}|\b(?=be\b)|(?<=t)\b)
    |\s*[,:(–-]?\s*(?:which\s+|that\s+)?(?:violates|fails|contradicts|breaks|does(?:\s+not|n['’]t))\b
    |\s*[.,:(–-]\s*(?:which\s+is\s+)?(?:wrong|incorrect|invalid|not\s+(?:correct|right|valid|possible))\s*(?:[.,:;!)–-]|\b(?:because|since|as)\b|\Z))""",
    re.IGNORECASE | re.VERBOSE,
)
_STATEMENT = re.compile(
    rf"{_CLOSING}*\s+(?:is|are|was|were|would|can|cannot|could|do|does|has|have)\b", re.IGNORECASE
)
_RIGHT = re.compile(
    rf"""{_CLOSING}*\s+(?:(?:is|was|would\s+be|must\s+be|should\s+be)\s+(?:(?:definitely|clearly|therefore|thus|indeed|probably|most\s+likely|also)\s+)*
        (?:(?:the|my)\s+)?(?:(?:only|single|final)\s+)*(?:correct|right|best|answer|most\s+(?:appropriate|likely))\b
            (?![^.!?\n]*\b(?:if|unless|except)\b)
    |(?:satisfies|meets|fulfil+s|fits|matches)\s+(?:all|every)\b(?:\s+\w+){{0,3}}?\s+(?:constraint|condition|criteri|requirement)\w*{_CLOSING}*\s*(?:[.!]|\n|\Z))""",
    re.IGNORECASE | re.VERBOSE,
)
_CLAUSE_BEGINS = re.compile(
    rf"""(?:\A|[.!?:;,\n]|\b(?:and|so|but|then|therefore|thus|hence|because|since|as|while|only|(?<!not\ )(?<!n['’]t\ )(?:think|believe|conclude)(?:\ that)?)\b)
    [ \t#>-]*{_OPENING}*(?:the\s+)?(?:(?:option|choice|answer|letter)\s+)?{_OPENING}*\Z""",
    re.IGNORECASE | re.VERBOSE,
)

_BACTERIA = (
    r"(?:coli|diff|difficile|albicans|trachomatis|botulinum|perfringens|tetani|jejuni|diphtheriae|neoformans|psittaci|burnetii|immitis|pertussis"
    r"|anthracis|cereus|fragilis|burgdorferi|henselae|microti|faecalis|faecium|histolytica|granulosus|corrodens)\b"
)
_NOT_ALONE = (
    rf"(?!['’]\w|\.(?!(?-i:[A-Z][a-z]))\w|\.?[ ]{_BACTERIA})(?P<close>{_CLOSING}*+)(?![\w+/&^]|-\w|:[0-9])"
)
_ENDS = r"\s*\Z|[ \t]*\n|[.,:;!?<\\|=]|[ \t]*[–—]|[ \t]+[-(]"
_LINKS = r"because|since|as|and|but|which|whereas|although|instead|rather|or|due[ ]to|based[ ]on|given[ ]that|not[ ](?=\W*\w\b)"
_MARKED = re.compile(rf"{_CLOSING}|[.:](?=\s|\Z|(?-i:[A-Z]))")

# Between two mentions: what joins them.
_ALSO = r"(?:[,;/]|,?\s*\b(?:and(?:/or)?|or|as\s+well\s+as|plus)\b)\s*(?:(?:possibly|perhaps|maybe|also|even)\s+)?"
_NAMED = rf"(?:(?:option|choice)\s+)?(?:{_OPENING}|{_TEX}|{_BOX})*"
_JOINED = re.compile(rf"{_CLOSING}*[.:]?\s*\(?{_ALSO}{_NAMED}", re.IGNORECASE)
_BESIDE = re.compile(rf"(?:{_CLOSING}+[.:]?|[.:]|(?=[ \t]+\())[ \t]*{_NAMED}", re.IGNORECASE)
_WITH_TEXT = re.compile(rf"[^\n]*?{_CLOSING}*\s*{_ALSO}{_NAMED}", re.IGNORECASE)

_BEGINNING = re.compile(
    rf"[ \t]*(?:[-•+*#>]+[ \t]+)?{_OPENING}*(?:(?:option|choice|answer)[ ]+)?{_OPENING}*\Z", re.IGNORECASE
)
_BARE_BEFORE = re.compile(rf"[ \t#]*(?:{_OPENING}|{_TEX})*")
_BARE_AFTER = re.compile(rf"(?:{_CLOSING}|[.:!])*+[ \t\r]*+(?=\n|\Z)")
_NEXT = re.compile(r"[^\n]*\n")
_NEXT_LINE = re.compile(r"[^\n]*(?:\n[ \t\r]*)+(?<=\n)")
_SENTENCE_BEGINS = re.compile(rf"[.!?:;]{_CLOSING}*\s+{_OPENING}*\Z")
_OFFERED = re.compile(r"(?:[(\[]|\b(?:option|choice)[ ]+)[*_`\"'“‘]*\Z", re.IGNORECASE)


@dataclass(frozen=True)
class _Language:
    """The patterns for one set of names. ended, linked: what follows a name that counts, without and with a linking word."""

    names: tuple[str, ...]
    letters: bool
    name: re.Pattern[str]
    cue: re.Pattern[str]
    hint: re.Pattern[str]
    best: re.Pattern[str]
    ended: re.Pattern[str]
    linked: re.Pattern[str]


@dataclass(frozen=True)
class _Place:
    """A mention of a name. index: among all of them. before: as much of the text before it as can bear on it; line: of that, what is on its
    line. small: whether it is a small letter.
    """

    index: int
    name: str
    start: int
    end: int
    before: str
    line: str
    small: bool


def letter_of(text: str, labels: Sequence[str]) -> str | None:
    """The label, one of `labels` (capital letters), that `text` decides for; None where it decides for none, or for several."""
    return _Reading(text, _language(tuple(labels), letters=True)).decision()


def word_of(text: str, words: Sequence[str]) -> str | None:
    """The word, one of `words` as spelled there, that is the verdict of `text`, in whatever case; None where there is none, or several."""
    return _Reading(text, _language(tuple(words), letters=False)).decision()


class _Reading:
    """A text and the mentions in it. rejected, joined: of each mention, whether it is called wrong, and whether it and the next are several."""

    def __init__(self, text: str, language: _Language) -> None:
        self.text = text
        self.language = language
        self.places = list(self._places())
        self.rejected = self._rejections()
        self.joined = [self._is_joined(*pair) for pair in pairwise(self.places)] + [False] * bool(self.places)

    def decision(self) -> str | None:
        claims = [*self._declared(), *self._called_right(), *self._alone()]
        if claims:
            return max(claims, key=lambda claim: claim[0])[1]
        begins = [place for place in self.places if self._begins(place)]
        if begins and not self.text[: begins[0].start - len(begins[0].line)].strip():
            return self._of_beginning(begins)
        return self._of_mentions()

    # Stage 1: claims are where a declaration stands and the name it is for; None where it is for several.

    def _declared(self) -> Iterator[tuple[int, str | None]]:
        """Where a cue stands before a name."""
        for place in self.places:
            if not self.language.linked.match(self.text, place.end) or self._is_second(place):
                continue
            firmly = self.language.cue.search(place.before)
            cue = firmly or (None if place.small else self._hint(place))
            if (
                not cue
                or _SUPPOSED.search(place.before[: cue.start()])
                or (not firmly and self.rejected[place.index])
            ):
                continue
            if cue["both"] or self._is_several(place):
                if firmly:
                    yield place.start, None
            elif not self._is_listed(place, blank_lines="\n" in cue[0]):
                yield place.start, place.name
            elif "\n" not in cue[0]:
                yield place.start, None

    def _hint(self, place: _Place) -> re.Match[str] | None:
        marked = place.before.endswith(("*", "(", "[")) or _MARKED.match(self.text, place.end)
        return self.language.hint.search(place.before) or (
            self.language.best.search(place.before) if marked else None
        )

    def _called_right(self) -> Iterator[tuple[int, str | None]]:
        for place in self.places:
            if (
                not place.small
                and _RIGHT.match(self.text, place.end)
                and _CLAUSE_BEGINS.search(place.before)
                and not self._follows(place)
            ):
                yield place.start, place.name

    def _alone(self) -> Iterator[tuple[int, str | None]]:
        """Where lines, or the last of several sentences in words, hold nothing else; None where lines disagree."""
        alone = []
        for place in self.places:
            rest = _BARE_BEFORE.fullmatch(place.line) and _BARE_AFTER.match(self.text, place.end)
            if rest and (
                not place.small
                or self.text.strip() == self.text[place.start - len(place.line) : rest.end()].strip()
            ):
                alone.append(place)
        if alone:
            yield alone[-1].start, alone[-1].name if len({place.name for place in alone}) == 1 else None
        last = next(iter(self.places[-1:]), None)
        if (
            last
            and not self.language.letters
            and _SENTENCE_BEGINS.search(last.before)
            and _BARE_AFTER.fullmatch(self.text.rstrip(), last.end)
            and not self._is_second(last)
        ):
            yield last.start, last.name

    # Stages 2 and 3.

    def _of_beginning(self, begins: list[_Place]) -> str | None:
        first = begins[0]
        if self._is_several(first) or self._is_repeated(first) or self._is_listed(first, blank_lines=True):
            return None
        order = list(dict.fromkeys(place.name for place in begins))
        if not self.language.letters:
            return first.name if len(order) == 1 else None
        # Lines that go through the choices: something stands below each, and not only below the first.
        gone_through = len(order) > 1 and order == list(self.language.names[: len(order)])
        return (
            None
            if gone_through and all(self._lines_between(*pair) for pair in pairwise(begins))
            else first.name
        )

    def _of_mentions(self) -> str | None:
        named = {place.name for place in self.places if self._is_named(place)}
        others = set() if self.language.letters else {place.name for place in self.places}
        return named.pop() if len(named) == 1 and len(named | others) == 1 else None

    # What is said of a mention.

    def _places(self) -> Iterator[_Place]:
        spelled = {name.lower(): name for name in self.language.names}
        for index, match in enumerate(self.language.name.finditer(self.text)):
            start = match.start()
            before = self.text[max(0, start - _REACH) : start]
            name = spelled[match[0].lower()]
            small = self.language.letters and match[0] != name
            yield _Place(index, name, start, match.end(), before, before.rpartition("\n")[2], small)

    def _rejections(self) -> list[bool]:
        """Of each mention; in `A, B and C are wrong`, of all three."""
        rejected = []
        following: _Place | None = None
        all_of_them = False
        for place in reversed(self.places):
            after = _REJECTED_AFTER.match(self.text, place.end)
            linked = following and any(
                between.fullmatch(self.text, place.end, following.start) for between in (_JOINED, _BESIDE)
            )
            all_of_them = bool(after and after["several"]) or bool(linked and all_of_them)
            rejected.append(bool(after) or all_of_them)
            following = place
        return rejected[::-1]

    def _is_joined(self, place: _Place, following: _Place) -> bool:
        """Whether the mention and the next are named together, and nothing is said of the next alone."""
        if (
            following.name == place.name
            or following.start - place.end > _REACH
            or self.rejected[following.index]
            or _STATEMENT.match(self.text, following.end)
        ):
            return False
        if joined := _JOINED.fullmatch(self.text, place.end, following.start):
            by_word = self.language.letters and not following.small and re.search(r"\w", joined[0])
            return bool(by_word or self.language.linked.match(self.text, following.end))
        beside = _BESIDE.fullmatch(self.text, place.end, following.start)
        return bool(beside and _MARKED.match(self.text, following.end))

    def _is_several(self, place: _Place) -> bool:
        """Whether others are named together with it, with the choices' texts or without them."""
        if self.joined[place.index]:
            return True
        mark = _MARKED.match(self.text, place.end)
        for other in self.places[place.index + 1 :]:
            if not mark or other.start - place.end > _TEXT or "\n" in self.text[place.end : other.start]:
                break
            if self._is_marked_like(place, other):
                return _WITH_TEXT.fullmatch(self.text, mark.end(), other.start) is not None
        return False

    def _is_second(self, place: _Place) -> bool:
        return place.index > 0 and self.joined[place.index - 1]

    def _follows(self, place: _Place) -> bool:
        last = self.places[place.index - 1] if place.index else None
        return last is not None and _JOINED.fullmatch(self.text, last.end, place.start) is not None

    def _is_marked_like(self, place: _Place, other: _Place) -> bool:
        mark = self.text[place.end : place.end + 1]
        return (
            other.name != place.name
            and mark in {".", ")", ":"}
            and re.match(rf"{re.escape(mark)}(?:\s|\Z)", self.text[other.end : other.end + 2]) is not None
            and not self.rejected[other.index]
        )

    def _is_repeated(self, first: _Place) -> bool:
        """Whether another name has the same mark on the line: choices are repeated there."""
        until = self.text.find("\n", first.end)
        return any(
            self._is_marked_like(first, other)
            for other in self.places[first.index + 1 :]
            if until < 0 or other.start < until
        )

    def _is_listed(self, place: _Place, blank_lines: bool) -> bool:
        """Whether the next line, blank ones passed over or not, begins with another name."""
        following = (_NEXT_LINE if blank_lines else _NEXT).match(self.text, place.end)
        for other in self.places[place.index + 1 :]:
            if not following or other.start - len(other.line) > following.end():
                break
            if other.start >= following.end() and self._begins(other):
                return other.name != place.name
        return False

    def _lines_between(self, place: _Place, other: _Place) -> bool:
        """Whether something stands on the lines between."""
        return bool("".join(self.text[place.end : other.start].split("\n")[1:-1]).strip())

    def _begins(self, place: _Place) -> bool:
        """Whether a line begins with the name and a mark behind it."""
        ended = self.language.ended.match(self.text, place.end)
        if not ended or not _BEGINNING.fullmatch(place.line) or self.rejected[place.index]:
            return False
        mark = ended["close"] + self.text[ended.end() : ended.end() + 1]
        shown = not place.small or mark[:1] in {".", ")", "]", ":"} or re.search(r"\w", place.line)
        return bool(shown) and not (place.name == "I" and mark[:1] == ",")

    def _is_named(self, place: _Place) -> bool:
        if place.small or _REJECTED_BEFORE.search(place.before) or self.rejected[place.index]:
            return False
        if self.language.letters:
            return bool(_OFFERED.search(place.before) and self.language.linked.match(self.text, place.end))
        return bool(self.language.ended.match(self.text, place.end))


@lru_cache(maxsize=64)
def _language(names: tuple[str, ...], letters: bool) -> _Language:
    flags = re.IGNORECASE | re.VERBOSE
    either = "(?:" + "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)) + ")"
    turn = rf"(?:not\s+{_OPENING}*{either}\b{_CLOSING}*,?\s*(?:but|(?:rather\s+)?it\s+is|it['’]s)\s+(?:rather\s+)?)?"
    until = rf"{_UNTIL}{turn}(?P<both>\b(?:both|either|neither)\b)?{_UNTIL}\Z"
    starts, links = (
        ("because|since", _LINKS)
        if letters
        else ("because|since|it|this|that|he|she|they", _LINKS + "|it|this|that|he|she|they|in|here")
    )
    return _Language(
        names=names,
        letters=letters,
        name=re.compile(rf"(?<![\w\\])(?<!\b[A-Z]\.){either}(?!\w)", flags),
        cue=re.compile(rf"(?:{_CUE}){until}", flags),
        hint=re.compile(rf"(?:{_HINT}{'' if letters else _WORD_HINT}){until}", flags),
        best=re.compile(rf"(?:{_BEST}){until}", flags),
        ended=re.compile(rf"{_NOT_ALONE}(?:(?<={_CLOSING})|(?={_ENDS}|[ \t]+(?:{starts})\b))", flags),
        linked=re.compile(rf"{_NOT_ALONE}(?:(?<={_CLOSING})|(?={_ENDS}|[ \t]+(?:{links})\b))", flags),
    )
