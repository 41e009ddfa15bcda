"""Loads the training data of an expert: a prepared subset, a data set of the toy pool, or a user's file."""

from collections.abc import Iterator
from pathlib import Path

from sparta.chat.template import Message
from sparta.errors import SpartaError
from sparta.names import nearest
from sparta.recipes.pool import EMBEDDED, is_sft_file
from sparta.rng import stream
from sparta.tasks import prepared
from sparta.tasks.base import Item
from sparta.tasks.chats import Chat
from sparta.tasks.sft_data.tulu import SFT_DATA
from sparta.tasks.user_data.items import UserItems
from sparta.tasks.user_data.sources import UserSource


def sft_rows_of(reference: str, folder: Path, size: int | None, seed: int) -> list[Chat]:
    """The chats of `reference`, in order.

    reference: a subset prepared in `folder`; embedded:NAME; a file (see sparta.tasks.user_data.sources) whose rows have an answer: either turns
    that end with the assistant's, or a `reference` (see sparta.tasks.user_data.forms). size: the number of rows to draw, by `seed` (the run's); None: all. Raises
    SpartaError if there is no such data, if it has fewer rows than `size`, and for an invalid line of a file.
    """
    chats = list(_chats(reference, folder, seed))
    if not chats:
        raise SpartaError(f"{reference} has no row to train on: at least one is needed")
    if size is None:
        return chats
    if size > len(chats):
        raise SpartaError(
            f"{reference} has {len(chats):,} rows to train on, but size is {size:,}: set a smaller size, or leave it out for all rows"
        )
    # By the file's name, so that the draw does not depend on its folder.
    chosen = stream(seed, "lessons", Path(reference).name).sample(range(len(chats)), size)
    return [chats[place] for place in sorted(chosen)]


def _chats(reference: str, folder: Path, seed: int) -> Iterator[Chat]:
    if is_sft_file(reference):
        return _own(Path(reference))
    if reference.startswith(EMBEDDED):
        return _embedded(reference.removeprefix(EMBEDDED), seed)
    _known(reference, folder)
    return iter(prepared.read_chats(folder, reference))


def _known(name: str, folder: Path) -> None:
    """Raise SpartaError if `name` is not a subset, with the most similar name and the command that prepares it."""
    if name in SFT_DATA:
        return
    near = nearest(name, SFT_DATA)
    meant = (
        f"did you mean {near}, which {prepared.command_to_prepare(folder, near)} prepares?"
        if near
        else f"known are {', '.join(SFT_DATA)}, and {prepared.command_to_prepare(folder, 'NAME')} prepares one; a file ends with .jsonl"
    )
    raise SpartaError(f"there is no subset {name} to train on; {meant}")


def _embedded(name: str, seed: int) -> Iterator[Chat]:
    from sparta.toy import expert_rows

    try:
        rows = expert_rows.expert_rows(name, seed)
    except ValueError as error:
        raise SpartaError(f"{EMBEDDED}{name} names no data to train on: {error}") from None
    for number, (asked, reply) in enumerate(rows):
        yield Chat(f"{name}-{number}", (Message("user", asked), Message("assistant", reply)))


def _own(path: Path) -> Iterator[Chat]:
    key = "the sft.data of the model that is trained on it"
    for place, item in UserItems(UserSource(path, str(path), key)):
        if why := _flaw(item):
            raise SpartaError(f"{path}, {place}: {item.item_id} {why}")
        yield Chat(item.item_id, (*item.messages, Message("assistant", item.reference or "")))


def _flaw(item: Item) -> str | None:
    """Why a row of a file cannot be trained on; None if it can."""
    roles = [turn.role for turn in item.messages]
    if item.choices:
        return "has choices, which no prompt of a chat shows: write them into the prompt"
    if item.reference is None:
        return "has no answer to train on: end its messages with the assistant's, or give a reference"
    dialogue = roles[1:] if roles[0] == "system" else roles
    if dialogue != [("user", "assistant")[place % 2] for place in range(len(dialogue))]:
        return f"has the turns {', '.join(roles)}: after a system turn, if any, user and assistant take turns, the user first"
    return None
