"""The forms in which people keep instructions, recognised by the names of their columns, and turned into the suite's own form.

The suite's own form is an object with `prompt` (text or turns) or `messages`, and optionally
  id         text or a whole number; default: p000012 in line (or row) 12
  answer     the right answer: a text or a number (digits are kept as typed); with choices, the label of the right one
  choices    label -> text, or a list of texts, which get the labels A, B, ...
  right      labels of all right choices, if there are several
  reference  a complete good answer, for methods and judges that need one
  level      its skill, subject or difficulty

In every form, a last turn of the assistant is the reference. No text is invented or changed; parts of a prompt are joined by a blank line.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from string import ascii_uppercase
from typing import Any

from sparta.names import nearest
from sparta.tasks.chats import ROLES

OPTIONAL = {"reference", "answer", "choices", "right", "level"}
"""Keys for which null means the same as leaving them out."""
Row = Mapping[str, Any]
SYSTEM = ("system", "system_prompt")
PROMPTS = ("prompt", "question", "instruction")
COMPLETIONS = ("completion", "response", "output")
QUESTIONS = ("question", "problem", "query", "input", "inputs")
REPLIES = ("solution", "response", "output", "targets")
MISSPELT = 0.8
"""From this similarity on (difflib), a column that is not read is taken for a misspelt one. `text`, which many data sets have, and `context` have 0.73."""


class Unusable(Exception):
    """A row of another form without a question. It is left out and counted by this reason."""


@dataclass(frozen=True)
class Form:
    """One form. needs: for each column that it must have, the names it goes by. uses: other columns that it reads. strict: whether any other column
    is an error. without: columns beside which it is not chosen unless it is named. build: the row in the suite's own form, without OPTIONAL keys of the same name, which are kept; raises ValueError or Unusable.
    """

    name: str
    needs: tuple[tuple[str, ...], ...]
    uses: frozenset[str]
    build: Callable[[Row], dict[str, Any]]
    strict: bool = False
    without: frozenset[str] = frozenset()

    def fits(self, columns: Collection[str]) -> bool:
        return all(any(name in columns for name in names) for names in self.needs)

    @property
    def known(self) -> set[str]:
        return {name for names in self.needs for name in names} | self.uses | OPTIONAL | {"id"}

    @property
    def described(self) -> str:
        return " + ".join(" or ".join(names) for names in self.needs)


def form_of(columns: Collection[str], named: str) -> Form:
    """The form that fits `columns`: the one called `named`, or with "auto" the first that fits. Raises ValueError if none does."""
    if named != "auto":
        form = next(form for form in FORMS if form.name == named)
        if not form.fits(columns):
            raise ValueError(f"data.format {named} needs {form.described}, but {_found(columns)}")
        return form
    for form in FORMS:
        others = set(columns) - form.known if form.strict else form.without & set(columns)
        if form.fits(columns) and not others:
            return form
    needed = sorted({name for form in FORMS for names in form.needs for name in names})
    for column in columns:
        if near := nearest(column, needed):
            raise ValueError(f"unknown key {column}, did you mean {near}?")
    raise ValueError(
        f"{_found(columns)}, which is no form that is known ({'; '.join(dict.fromkeys(form.described for form in FORMS))}): "
        "name yours in data.columns, such as {prompt: question}"
    )


def unused_of(form: Form, row: Row) -> list[str]:
    """The columns of `row` that `form` does not read, in order. Raises ValueError for one that looks like a misspelt name.

    A list or an object is not taken for one: in many data sets, `answers` and `completions` hold several.
    """
    unused = [column for column in row if column not in form.known]
    for column in unused:
        near = next(iter(get_close_matches(column, form.known - set(row), n=1, cutoff=MISSPELT)), None)
        if form.strict or (near and not isinstance(row[column], (list, tuple, Mapping))):
            meant = f"did you mean {near}? Rename it" if near else "leave it out"
            raise ValueError(f"unknown key {column}, {meant}, or name the columns to read in data.columns")
    return unused


def renamed(row: Row, columns: Mapping[str, str]) -> Row:
    """`row` with its columns named as `columns` says (our name -> theirs), and no others; `row` itself without `columns`.

    Raises ValueError for a column that the row does not have.
    """
    if not columns:
        return row
    for theirs in columns.values():
        if theirs not in row:
            raise ValueError(f"data.columns names {theirs}, but {_found(row)}")
    return {ours: row[theirs] for ours, theirs in columns.items()}


def in_own_form(form: Form, row: Row) -> dict[str, Any]:
    """`row` in the suite's own form, its last answer taken out of the turns. Raises ValueError for what cannot be meant, and Unusable."""
    built = form.build(row)
    own: dict[str, Any] = {
        key: row[key]
        for key in ("id", *sorted(OPTIONAL))
        if row.get(key) is not None and not (key in ("answer", "choices") and built.get(key))
    }
    for key, value in built.items():
        if value is not None or form.strict:
            if key in own and own[key] != value:
                raise ValueError(
                    f"it has a {key} twice, {_short(own[key])} and {_short(value)}: leave one of them out"
                )
            own[key] = value
    turns = own.get("messages")
    if isinstance(turns, list) and len(turns) > 1 and turns[-1]["role"] == "assistant":
        if "reference" in own:
            raise ValueError(
                "it has an answer at the end of its turns and a reference as well: leave one of them out"
            )
        own |= {"messages": turns[:-1], "reference": turns[-1]["content"]}
    if not form.strict:
        turns = own.get("messages")
        if not turns or turns[-1]["role"] != "user":
            raise Unusable("rows without a question of the user's at the end")
    return own


def _found(columns: Collection[str]) -> str:
    shown = [column if len(column) <= 40 else f"{column[:40]}..." for column in list(columns)[:12]]
    more = f" and {len(columns) - 12} more" if len(columns) > 12 else ""
    return f"its columns are {', '.join(shown)}{more}" if shown else "it has no column"


def _short(value: Any) -> str:
    text = str(value)
    return repr(text if len(text) <= 30 else f"{text[:30]}...")


def _system(row: Row) -> str:
    return _text(row, *SYSTEM)


def _text(row: Row, *names: str) -> str:
    """The text of the first of `names` that `row` has; "" where it is null. Raises ValueError for what is no text."""
    value = next((row[name] for name in names if row.get(name) is not None), "")
    if not isinstance(value, str):
        raise ValueError(
            f"{next(name for name in names if row.get(name) is not None)} is {type(value).__name__}, no text"
        )
    return value


def turns_of(value: Any, column: str) -> list[dict[str, str]]:
    """The turns of a list of {role, content} or {from, value}. Raises ValueError naming the turn that is neither, or has more than text."""
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{column} is no list of turns")
    turns = []
    for number, turn in enumerate(value, start=1):
        if not isinstance(turn, Mapping):
            raise ValueError(f"{column}: turn {number} is no object with role and content")
        speaker = str(turn.get("role") or turn.get("from"))
        content = turn.get("content") if turn.get("content") is not None else turn.get("value")
        if turn.get("tool_calls"):
            raise ValueError(f"{column}: turn {number} calls a tool, which no duel can do")
        if speaker not in ROLES:
            raise ValueError(f"{column}: turn {number} is of {_short(speaker)}, none of {', '.join(ROLES)}")
        turns.append({"role": ROLES[speaker], "content": _content(content, column, number)})
    return turns


def _content(content: Any, column: str, number: int) -> str:
    """The text of a turn: a text, or a list of parts of type text."""
    if isinstance(content, str):
        return content
    if isinstance(content, (list, tuple)) and all(
        isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)
        for part in content
    ):
        return "".join(part["text"] for part in content)
    raise ValueError(f"{column}: turn {number} is no text")


def _asked(*parts: str, system: str = "") -> list[dict[str, str]]:
    """The turns of a prompt made of `parts`, joined by a blank line. Raises Unusable if all are empty."""
    prompt = "\n\n".join(part for part in parts if part.strip())
    if not prompt:
        raise Unusable("rows with an empty prompt")
    before = [{"role": "system", "content": system}] if system.strip() else []
    return [*before, {"role": "user", "content": prompt}]


def _prompt(row: Row, column: str = "prompt") -> list[dict[str, str]]:
    """The turns of a prompt that is a text or a list of turns."""
    value = row.get(column)
    if isinstance(value, (list, tuple)):
        return turns_of(value, column)
    return _asked(_text(row, column), system=_system(row))


def _reply(value: Any, column: str) -> str | None:
    """The text of an answer that is a text or a list with one turn of the assistant; None if it is empty."""
    if isinstance(value, (list, tuple)):
        turns = turns_of(value, column)
        if len(turns) != 1 or turns[0]["role"] != "assistant":
            raise ValueError(f"{column} is not one turn of the assistant")
        value = turns[0]["content"]
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{column} is {type(value).__name__}, neither a text nor a turn")
    return value if value and value.strip() else None


def _own(row: Row) -> dict[str, Any]:
    if "prompt" in row and "messages" in row:
        raise ValueError("give either prompt or messages")
    given = {key: row[key] for key in ("prompt", "messages") if key in row}
    if isinstance(row.get("prompt"), (list, tuple)) and "messages" not in row:
        return {"messages": turns_of(row["prompt"], "prompt")}
    if isinstance(row.get("messages"), (list, tuple)) and "prompt" not in row:
        return {"messages": turns_of(row["messages"], "messages")}
    return given


def _column(row: Row, names: tuple[str, ...]) -> str:
    """The first of `names` that `row` has a value for; the first that it has, or the first, if all are null."""
    has = [name for name in names if name in row]
    return next((name for name in has if row[name] is not None), has[0] if has else names[0])


def _completion(row: Row) -> dict[str, Any]:
    column = _column(row, COMPLETIONS)
    return {"messages": _prompt(row), "reference": _reply(row[column], column)}


def _preference(row: Row) -> dict[str, Any]:
    """The better of two answers is the reference. Without a prompt, it is all turns of `chosen` but the last."""
    chosen = row["chosen"]
    prompt = next((name for name in PROMPTS if row.get(name) is not None), None)
    if isinstance(chosen, str) and prompt is None:
        chosen = _spoken(chosen)
    if not isinstance(chosen, (list, tuple)):
        if prompt is None:
            raise ValueError("chosen is a text and there is no prompt, so what was asked is not known")
        return {"messages": _prompt(row, prompt), "reference": _reply(chosen, "chosen")}
    turns = turns_of(chosen, "chosen")
    if not turns or turns[-1]["role"] != "assistant":
        raise ValueError("chosen does not end with a turn of the assistant")
    if prompt is None:
        return {"messages": turns}
    return {"messages": _prompt(row, prompt), "reference": turns[-1]["content"] or None}


def _spoken(text: str) -> str | list[dict[str, str]]:
    """The turns of a text in which each begins with "Human: " or "Assistant: " after a blank line; any other text as it is."""
    if not text.startswith("\n\nHuman: "):
        return text
    parts = re.split(r"\n\n(Human|Assistant): ?", text)[1:]
    return [
        {"role": {"Human": "user", "Assistant": "assistant"}[speaker], "content": said.strip()}
        for speaker, said in zip(parts[::2], parts[1::2], strict=True)
    ]


def _messages(row: Row) -> dict[str, Any]:
    return {"messages": turns_of(row["messages"], "messages")}


def _sharegpt(row: Row) -> dict[str, Any]:
    column = "conversations" if "conversations" in row else "conversation"
    spoken = row[column]
    if spoken and isinstance(spoken, (list, tuple)) and all(isinstance(turn, str) for turn in spoken):
        # Texts in turn, the user's first.
        spoken = [{"from": ("user", "assistant")[at % 2], "value": text} for at, text in enumerate(spoken)]
    turns = turns_of(spoken, column)
    system = _system(row)
    if system.strip() and (not turns or turns[0]["role"] != "system"):
        turns.insert(0, {"role": "system", "content": system})
    return {"messages": turns}


def _alpaca(row: Row) -> dict[str, Any]:
    column = _column(row, ("output", "response", "completion"))
    return {
        "messages": _asked(_text(row, "instruction"), _text(row, "input", "context"), system=_system(row)),
        "reference": _reply(row.get(column), column),
    }


def _question(row: Row) -> dict[str, Any]:
    column, reply = _column(row, QUESTIONS), _column(row, REPLIES)
    answer = row.get("answer") if row.get("answer") is not None else row.get("answerKey")
    choices = row.get("choices")
    if isinstance(choices, (list, tuple)) and type(answer) is int and 0 <= answer < len(choices):
        answer = _label(answer, choices)
    if isinstance(choices, Mapping) and set(choices) == {"text", "label"}:
        if not all(isinstance(choices[key], (list, tuple)) for key in ("text", "label")):
            raise ValueError("choices have text and label that are no lists")
        if len(choices["text"]) != len(choices["label"]):
            raise ValueError("choices have another number of texts than of labels")
        choices = dict(zip(map(str, choices["label"]), choices["text"], strict=True))
    return {
        "messages": _asked(_text(row, "context"), _text(row, column), system=_system(row)),
        "reference": _reply(row.get(reply), reply),
        "answer": answer,
        "choices": choices,
    }


def _label(place: int, choices: Collection[Any]) -> str:
    """The label of the choice at `place`, counted from 0. Raises ValueError where there are more choices than labels, or where the number may be meant as
    the text of another choice.
    """
    if len(choices) > len(ascii_uppercase):
        raise ValueError(f"it has {len(choices)} choices, and there are {len(ascii_uppercase)} labels")
    if str(place) in [str(choice) for at, choice in enumerate(choices) if at != place]:
        raise ValueError(
            f"its answer {place} is the place of one choice and the text of another: give the label of the right one (A, B, ...)"
        )
    return ascii_uppercase[place]


def _bare(row: Row) -> dict[str, Any]:
    return {"messages": _prompt(row)}


FORMS: tuple[Form, ...] = (
    Form("own", (("prompt", "messages"),), frozenset(), _own, strict=True),
    Form("completion", (("prompt",), COMPLETIONS), frozenset(SYSTEM), _completion),
    Form("preference", (("chosen",), ("rejected",)), frozenset({*PROMPTS, *SYSTEM}), _preference),
    Form("messages", (("messages",),), frozenset({"prompt"}), _messages),
    Form("sharegpt", (("conversations", "conversation"),), frozenset(SYSTEM), _sharegpt),
    Form(
        "alpaca",
        (("instruction",),),
        frozenset({"input", "context", "output", "response", "completion", *SYSTEM}),
        _alpaca,
    ),
    Form(
        "question",
        (QUESTIONS,),
        frozenset({"context", *REPLIES, "answerKey", *SYSTEM}),
        _question,
        without=frozenset({"prompt"}),
    ),
    Form("prompt", (("prompt",),), frozenset(SYSTEM), _bare),
)
"""All forms, the first that fits first."""
