r"""Extracts the letter of a choice, or the word of a verdict, that an answer decides for.

There are three stages; the first that finds something decides:

1. Declarations; the last one counts: `the answer is B`, `Answer: (B)`, `\boxed{B}`, `I choose B`, `it is B`, `so B`, `not A but B`,
   `the choice that satisfies all constraints is B`, `the most likely diagnosis is B. text`; `B is correct` and `B satisfies all constraints`
   if B begins its clause; lines with only `B`; for words, also a last sentence with only one word.
2. The beginning: `B. text`, `B) text`, `B, ...`, `B because ...`, `Option B: text`. Later text about the other choices changes nothing.
3. A single mention: a letter in brackets or after `option`; a word that ends a phrase.

In all stages, a negated, hypothetical or rejected choice does not count (`the answer is not A`, `if the answer is A`, `A, which violates ...`).
Several choices together are no decision: `A or B`, `A. text; B. text`, `(A) (B)`, or a list of choices: the next line begins with another
letter, or lines go through the choices from the first on, with text below each.

A mention counts only if punctuation, the end of a line or a word like `because` follows. So `A patient with ...`, `B cells`, `No one ...` and
letters in words and abbreviations (`U.S.A.`) do not count, nor do names listed by the data set (`C. difficile`). A small letter counts in
stage 1 after `answer is`, `I choose`, `\boxed` and similar, or as the whole text, and in stage 2 with a mark or `option` (`b)`). The text of a
choice without its letter is not read, because the texts of the choices are not known here.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sparta.grading.boxes import is_box_open
from sparta.grading.choice_language import CLOSING, OPENING, TEX, Language, language
from sparta.grading.letter_shapes import plain_letters
from sparta.grading.mentions import Mention, Mentions
from sparta.grading.passages import is_taken_back, passage_of

# Before a mention's cue: what invalidates it.
_SUPPOSED = re.compile(
    r"\b(?:wrong|incorrect|if|whether|why|unless|not|rather\s+than|instead\s+of)\s+(?:that\s+)?(?:(?:the|my|an?)\s+)?(?:(?:correct|right|best|final)\s+)*[$\s*_(]*\Z",
    re.IGNORECASE,
)
# In the sentence before a cue: conditions (`if it were so, the answer would be`) and hearsay (`many would say that it is`).
_CONDITION = re.compile(r"\b(?:if|unless|otherwise|had|were)\b[^.!?\n]*\Z", re.IGNORECASE)
_HEARSAY = re.compile(
    r"\b(?:(?:you|one)\s+(?:might|may|could|would)|(?:students?|people|some|many|most|others)\b[^.,;:!?\n]{0,30}?\b(?:would|might|may|could|say|think|choose|pick|answer|believe))\b"
    r"(?:(?!\b(?:but|however|yet)\b)[^.!?\n])*\Z",
    re.IGNORECASE,
)
# After a mention: what calls it right. Before a mention: the beginning of its clause.
_RIGHT = re.compile(
    rf"""{CLOSING}*\s+(?:(?:is|was|would\s+be|must\s+be|should\s+be)\s+(?:(?:definitely|clearly|therefore|thus|indeed|probably|most\s+likely|also)\s+)*
        (?:(?:the|my)\s+)?(?:(?:only|single|final)\s+)*(?:correct|right|best|answer|most\s+(?:appropriate|likely))\b
            (?![^.!?\n]*\b(?:if|unless|except)\b)
    |(?:satisfies|meets|fulfil+s|fits|matches)\s+(?:all|every)\b(?:\s+\w+){{0,3}}?\s+(?:constraint|condition|criteri|requirement)\w*{CLOSING}*\s*(?:[.!]|\n|\Z))""",
    re.IGNORECASE | re.VERBOSE,
)
_CLAUSE_BEGINS = re.compile(
    rf"""(?:\A|[.!?:;,\n]|\b(?:and|so|but|then|therefore|thus|hence|because|since|as|while|only|(?<!not\ )(?<!n['’]t\ )(?:think|believe|conclude)(?:\ that)?)\b)
    [ \t#>-]*{OPENING}*(?:the\s+)?(?:(?:option|choice|answer|letter)\s+)?{OPENING}*\Z""",
    re.IGNORECASE | re.VERBOSE,
)

_BARE_BEFORE = re.compile(rf"[ \t#]*(?:{OPENING}|{TEX})*")
_BARE_AFTER = re.compile(rf"(?:{CLOSING}|[.:!])*+[ \t\r]*+(?=\n|\Z)")
_SENTENCE_BEGINS = re.compile(rf"[.!?:;]{CLOSING}*\s+{OPENING}*\Z")
_TICK = re.compile(
    rf"{CLOSING}*[.:)]?[ \t]*[-–—:]?[ \t]*{OPENING}*(?:(?P<yes>yes|true|correct|right|[✅✔✓☑]\ufe0f?)|(?P<no>no|false|incorrect|wrong|not[ ](?:correct|right|true)|[❌✗✘✕❎]\ufe0f?))"
    rf"(?:{CLOSING}|[.!])*[ \t]*(?=\n|\Z)",
    re.IGNORECASE,
)


def letter_of(text: str, labels: Sequence[str], things: Sequence[str] = ()) -> str | None:
    """The label, one of `labels` (capital letters), that `text` decides for; None if it decides for none or several, or is ambiguous.

    things: words that form another name with a letter before them, so that the letter is no choice: `coli` for `E. coli`.
    """
    return _letters(text, labels, things).name


def word_of(text: str, words: Sequence[str]) -> str | None:
    """The word, one of `words`, that is the verdict of `text`, in any case; None if there is none, or several."""
    return _words(text, words).name


def same_letter(
    right: Collection[str], text: str, labels: Sequence[str], things: Sequence[str] = ()
) -> bool | None:
    """Whether `text` decides for one of the labels `right`; None if it names choices, but the decision is ambiguous."""
    return _letters(text, labels, things).is_for(right)


def same_word(right: str, text: str, words: Sequence[str]) -> bool | None:
    """Whether the verdict of `text` is `right`; None if it contains one of `words`, but the verdict is ambiguous."""
    return _words(text, words).is_for((right,))


@dataclass(frozen=True)
class Decision:
    """name: the decision, None for no or several choices. clear: False if a human reader could not tell the decision."""

    name: str | None
    clear: bool = True

    def is_for(self, right: Collection[str]) -> bool | None:
        return self.name in right if self.clear else None


_AMBIGUOUS = Decision(None, clear=False)


def _letters(text: str, labels: Sequence[str], things: Sequence[str]) -> Decision:
    return _decision(plain_letters(text), language(tuple(labels), letters=True, things=tuple(things)))


def _words(text: str, words: Sequence[str]) -> Decision:
    return _decision(text, language(tuple(words), letters=False))


def _decision(text: str, language: Language) -> Decision:
    """The decision of the answer in `text` if it names a choice there, else of the whole text, including what it continues with."""
    passage = passage_of(text)
    if passage is None:
        return _AMBIGUOUS
    if passage.beyond:
        first = _Reading(passage.answer, language)
        if first.names_choice:
            return first.decision()
    return _Reading(passage.whole, language).decision()


class _Reading:
    """Derives a decision from the mentions in a text."""

    def __init__(self, text: str, language: Language) -> None:
        self.text = text
        self.language = language
        self.mentions = Mentions(text, language)
        self._claims = [*self._declared(), *self._called_right(), *self._ticked(), *self._alone()]
        begins = [place for place in self.mentions.all if self.mentions.begins(place)]
        at_once = bool(begins) and not text[: begins[0].start - len(begins[0].line)].strip()
        self._begins = begins if at_once else []

    @property
    def names_choice(self) -> bool:
        """Whether a name is mentioned in a way that may refer to a choice."""
        large = (place for place in self.mentions.all if not place.small)
        return bool(self._claims) or any(
            self.mentions.counts(place) or self.mentions.is_subject(place) for place in large
        )

    def decision(self) -> Decision:
        if self._claims:
            place, name = max(self._claims, key=lambda claim: claim[0])
        elif self._begins:
            place, name = self._begins[0].start, self._of_beginning(self._begins)
        else:
            return self._of_mentions()
        undone = is_taken_back(self.text, place + 1) or is_box_open(self.text, place)
        return _AMBIGUOUS if undone else Decision(name)

    # Stage 1: claims are the position of a declaration and its name; None if it is for several.

    def _declared(self) -> Iterator[tuple[int, str | None]]:
        """Names after a cue."""
        for place in self.mentions.all:
            if not self.mentions.counts(place) or self.mentions.is_second(place):
                continue
            firmly = self.language.cue.search(place.before)
            cue = firmly or (None if place.small else self._hint(place))
            if (
                not cue
                or self._is_supposed(place, cue)
                or (self.mentions.rejected[place.index] and not (firmly and not cue[0].startswith("\\")))
            ):
                continue
            if cue["both"] or self.mentions.is_several(place):
                if firmly:
                    yield place.start, None
            elif not self.mentions.is_listed(place, blank_lines="\n" in cue[0]):
                yield place.start, place.name
            elif "\n" not in cue[0]:
                yield place.start, None

    def _is_supposed(self, place: Mention, cue: re.Match[str]) -> bool:
        before = place.before[: cue.start()]
        conditional = "would" in cue[0].lower() and _CONDITION.search(before)
        return bool(_SUPPOSED.search(before) or conditional or _HEARSAY.search(place.before))

    def _hint(self, place: Mention) -> re.Match[str] | None:
        return self.language.hint.search(place.before) or (
            self.language.best.search(place.before) if self.mentions.is_marked(place) else None
        )

    def _called_right(self) -> Iterator[tuple[int, str | None]]:
        for place in self.mentions.all:
            if (
                not place.small
                and _RIGHT.match(self.text, place.end)
                and _CLAUSE_BEGINS.search(place.before)
                and not self.mentions.follows(place)
            ):
                yield place.start, place.name

    def _ticked(self) -> Iterator[tuple[int, str | None]]:
        """The ticked name, if lines mark each choice as right or wrong and exactly one is right."""
        if not self.language.letters:
            return
        lines = [
            place for place in self.mentions.all if not place.small and _BARE_BEFORE.fullmatch(place.line)
        ]
        marked = [(place, tick) for place in lines if (tick := _TICK.match(self.text, place.end))]
        ticked = [place for place, tick in marked if tick["yes"]]
        if len(ticked) == 1 and len(marked) > 1:
            yield ticked[0].start, ticked[0].name

    def _alone(self) -> Iterator[tuple[int, str | None]]:
        """Names alone on their line (None if such lines disagree), and a word alone in the last of several sentences."""
        alone = []
        for place in self.mentions.all:
            rest = _BARE_BEFORE.fullmatch(place.line) and _BARE_AFTER.match(self.text, place.end)
            if rest and (
                not place.small
                or self.text.strip() == self.text[place.start - len(place.line) : rest.end()].strip()
            ):
                alone.append(place)
        if alone:
            yield alone[-1].start, alone[-1].name if len({place.name for place in alone}) == 1 else None
        last = next(iter(self.mentions.all[-1:]), None)
        if (
            last
            and not self.language.letters
            and _SENTENCE_BEGINS.search(last.before)
            and _BARE_AFTER.fullmatch(self.text.rstrip(), last.end)
            and not self.mentions.is_second(last)
        ):
            yield last.start, last.name

    # Stages 2 and 3.

    def _of_beginning(self, begins: list[Mention]) -> str | None:
        first = begins[0]
        if (
            self.mentions.is_several(first)
            or self.mentions.is_repeated(first)
            or self.mentions.is_listed(first, blank_lines=True)
        ):
            return None
        order = list(dict.fromkeys(place.name for place in begins))
        if not self.language.letters:
            return first.name if len(order) == 1 else None
        # Lines that go through the choices have text below each, not only below the first.
        gone_through = len(order) > 1 and order == list(self.language.names[: len(order)])
        return (
            None
            if gone_through and all(self.mentions.lines_between(*pair) for pair in pairwise(begins))
            else first.name
        )

    def _of_mentions(self) -> Decision:
        named = {place.name for place in self.mentions.all if self.mentions.is_offered(place)}
        others = set() if self.language.letters else {place.name for place in self.mentions.all}
        if len(named) == 1 and len(named | others) == 1:
            return Decision(named.pop())
        return Decision(None, clear=not self.names_choice)
