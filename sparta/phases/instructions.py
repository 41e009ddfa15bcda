"""X, the instructions to align on: from a task or from a person's own JSONL, checked line by line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from sparta.errors import SpartaError
from sparta.prompts import Message
from sparta.recipe import Recipe
from sparta.store.records import Instruction
from sparta.tasks.registry import task_named

IGNORED = ("reference", "answer")
"""Keys of a prompt file that alignment does not need; anything else unknown is refused."""


def gather(recipe: Recipe) -> list[Instruction]:
    """The instructions that `recipe` names. Raises SpartaError naming file and line, or where there are none."""
    data = recipe.data
    if data.task is not None:
        items = task_named(data.task).items("train", data.size)
        found = [Instruction(item.item_id, item.messages) for item in items]
    else:
        found = list(_read(Path(data.train or "")))[: data.size]
    if not found:
        raise SpartaError(f"{data.train or data.task} has no instructions: at least one is needed")
    return found


def _read(path: Path) -> Iterator[Instruction]:
    seen: dict[str, int] = {}
    try:
        # str.splitlines also splits at separators that JSON allows within a text, such as U+2028.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SpartaError(f"the prompt file {path} cannot be read ({error}): check data.train") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        instruction = _parse(line, path, number)
        if instruction.prompt_id in seen:
            raise SpartaError(
                f"{path}, line {number}: the prompt id {instruction.prompt_id} was used in line {seen[instruction.prompt_id]} already: "
                "give every prompt an id of its own, or leave ids out"
            )
        seen[instruction.prompt_id] = number
        yield instruction


def _parse(line: str, path: Path, number: int) -> Instruction:
    def refuse(why: str) -> SpartaError:
        return SpartaError(f'{path}, line {number}: {why}; a line is an object such as {{"prompt": "..."}}')

    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise refuse(f"not JSON ({error.msg} at column {error.colno})") from None
    if not isinstance(row, dict):
        raise refuse(f"expected an object, found {type(row).__name__}")
    if unknown := sorted(row.keys() - {"id", "prompt", "messages", *IGNORED}):
        raise refuse(f"unknown key {unknown[0]}")
    if ("prompt" in row) == ("messages" in row):
        raise refuse("give either prompt or messages")
    try:
        messages = (
            msgspec.convert(row["messages"], tuple[Message, ...])
            if "messages" in row
            else (Message("user", row["prompt"]),)
        )
    except msgspec.ValidationError as error:
        raise refuse(f"messages are not a list of role and content ({error})") from None
    if not messages or not all(isinstance(turn.content, str) and turn.content.strip() for turn in messages):
        raise refuse("the prompt is empty or no text")
    if messages[-1].role != "user":
        raise refuse("the last message must be the user's")
    prompt_id = row.get("id", f"p{number:06d}")
    if isinstance(prompt_id, bool) or not isinstance(prompt_id, (str, int)) or not str(prompt_id).strip():
        raise refuse("the id is neither text nor a whole number")
    try:
        "".join((str(prompt_id), *(turn.content for turn in messages))).encode()
    except UnicodeEncodeError:
        raise refuse("it holds half a character (a lone surrogate), which no file can hold") from None
    return Instruction(str(prompt_id), messages)
