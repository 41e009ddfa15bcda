"""Finds the answer in a text (after the thinking, up to another question that the text continues with), and retractions of an answer."""

import re
from dataclasses import dataclass

from sparta.arena.votes import after_thinking

_ASKS = r"(?:question|problem|exercise|instruction|example|task|user|human|student)s?\b[ \t]*[0-9]*|Q[0-9]*"
_RUNS_ON = re.compile(
    rf"^[ \t]*+(?:(?:[#*]++[ \t]*+)?(?:{_ASKS})[*]*[ \t]*[:：]|<\|(?:im_start|start_header_id|user)\|>|\[INST\])"
    r"|<\|(?:im_end|endoftext|eot_id|end_of_text|end|return)\|>|</s>|<end_of_turn>|<eos>",
    re.IGNORECASE | re.MULTILINE,
)

_TAKEN_BACK = re.compile(
    r"(?:\A|[.!?\n,;(—–…:]|\b(?:but|oh|hmm))\W{0,6}(?:(?:wait|hold\s+on|on\s+second\s+thoughts?|scratch\s+that|correction|oops|sorry)\b|(?:actually|hmm),?\s+no\b"
    r"|no,\s+(?:that|this|it)\b|(?:(?<=\.\.)|(?<=[…—–,;-]))\s*no,|let\s+me\s+(?:re-?(?:check|consider|calculate|do|count|think|compute|examine|evaluate|work|verify)|correct|fix|try\s+again)\b|I\s+(?:made|was\s+wrong|misread|miscounted|miscalculated|forgot)\b)",
    re.IGNORECASE,
)
_UPHELD = re.compile(
    r"\b(?:correct|right|confirm\w*|indeed|verified|checks?\s+out|holds?|matches|consistent|yes)\b",
    re.IGNORECASE,
)
_FAULTED = re.compile(
    r"\b(?:wrong|incorrect|mistakes?|errors?|should\s+(?:be|have\s+been)|not\s+(?:right|correct|true)|misread|forgot|instead|miscount\w*|miscalculat\w*|again)\b"
    r"|n['’]t\s+(?:right|correct)\b",
    re.IGNORECASE,
)

ABROAD = r"(?:答案|答え|正解|正确答案|정답|Antwort|Lösung|Ergebnis|respuesta|solución|réponse|risposta|resposta|ответ)[^\W\d_]{0,4}"
"""`Answer` in other languages, with word endings."""
IS_ABROAD = r"(?:应该是|應該是|是|为|為|は|은|는|lautet|ist|beträgt|es|est|è|é|[:：=])"
"""`Is` after that word, in other languages."""

_ANSWER = r"\b(?:answer|final\s+(?:number|result|value|total|amount|count|price|cost))\b"
_TO_WHAT = r"(?:\s+(?:to|for|in|of)(?:\s+[\w'’]+){1,6}?)?"
_STATED = re.compile(
    rf"(?:{_ANSWER}{_TO_WHAT}[*_\"'\s]*(?:\b(?:is|was|(?P<would>would\s+be)|equals)\b|(?P<denied>\bis\s*n['’]t\b)|[:：=])|<answer>|{ABROAD}[*_ ]*{IS_ABROAD})[*_:]*"
    rf"(?P<rest>(?:(?!{_ANSWER}|{ABROAD})(?:[^.\n。！]|\.(?=[0-9])))*)",
    re.IGNORECASE,
)
_HEADING = re.compile(
    r"^[ \t]*[#*_]+[ \t]*(?:the[ \t]+)?(?:final[ \t]+)?answer[ \t#*_:：]*$", re.IGNORECASE | re.MULTILINE
)
# The condition in `If it were so, the answer would be`.
_SUPPOSES = re.compile(
    r"\b(?:if|unless|otherwise|suppos\w+|assum\w+|had|were)\b(?:[^.!?\n]|\.(?=[0-9]))*\Z", re.IGNORECASE
)
_REACH = 150
MARKUP = re.compile(r"[\s*_#:：$]*")
_BLANK = re.compile(r"[\s*_#:：]*\n[\s*_#:：]*")
_LINE = re.compile(r"[^\n]+")


@dataclass(frozen=True)
class Passage:
    """answer: the answer to the question. beyond: the rest, if the text continues with another question; otherwise ""."""

    answer: str
    beyond: str = ""

    @property
    def whole(self) -> str:
        return self.answer + self.beyond


def passage_of(text: str) -> Passage | None:
    """The answer in `text`; None if `text` is thinking that does not end."""
    visible = after_thinking(text)
    if visible is None:
        return None
    for found in _RUNS_ON.finditer(visible):
        if visible[: found.start()].strip():
            return Passage(visible[: found.start()], visible[found.start() :])
    return Passage(visible)


@dataclass(frozen=True)
class Statement:
    """A stated answer. place: the position of the words that introduce it. start, end: of the answer itself. denied: by `is not`.

    below: it is on the next line, where a dash may be a list marker.
    """

    place: int
    start: int
    end: int
    denied: bool = False
    below: bool = False


def statements_in(text: str) -> list[Statement]:
    """The stated answers of `text`: after `the answer is`, `answer:` and similar, up to the end of the sentence or line, or on the next line."""
    found: list[Statement] = []
    for stated in _STATED.finditer(text):
        if stated["would"] and _SUPPOSES.search(text[max(0, stated.start() - _REACH) : stated.start()]):
            continue
        if MARKUP.fullmatch(stated["rest"]):
            found += _below(text, stated.start(), stated.end())
        else:
            found.append(Statement(stated.start(), *stated.span("rest"), denied=stated["denied"] is not None))
    for heading in _HEADING.finditer(text):
        found += _below(text, heading.start(), heading.end())
    # `**Answer:**` is both.
    return sorted(
        {statement.start: statement for statement in found}.values(), key=lambda statement: statement.start
    )


def _below(text: str, place: int, end: int) -> list[Statement]:
    """The statement on the next non-empty line, if there is one."""
    blank = _BLANK.match(text, end)
    line = _LINE.match(text, blank.end()) if blank else None
    return [Statement(place, *line.span(), below=True)] if line else []


def is_taken_back(text: str, end: int) -> bool:
    """Whether the text after an answer that ends at `end` retracts it, or begins to doubt it without confirming it."""
    after = text[end:]
    found = _TAKEN_BACK.search(after)
    if found is None:
        return False
    return _FAULTED.search(after, found.start()) is not None or not _UPHELD.search(after, found.end())
