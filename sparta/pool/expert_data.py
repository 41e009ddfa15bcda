"""The SFT data of the pool's experts: read from the paths in the recipe, recorded when a run begins, and then checked to be unchanged."""

import hashlib
from collections.abc import Iterator, Sequence

import msgspec

from sparta import rng
from sparta.chat.options import ChatOptions
from sparta.chat.renderer import Renderer
from sparta.chat.sft_examples import SftSequence, sft_examples
from sparta.engines.scripted import ByteTokenizer
from sparta.engines.tokenizers import load_renderer
from sparta.errors import SpartaError
from sparta.pool.members import base_folder
from sparta.recipes.pool import Model
from sparta.recipes.schema import Recipe
from sparta.store import files
from sparta.store.records import SftDataInfo
from sparta.store.run import Run
from sparta.tasks.chats import Chat
from sparta.tasks.prepared import command_to_prepare, folder_of
from sparta.tasks.registry import task_named
from sparta.tasks.sft_data.contamination import held_out
from sparta.tasks.sft_data.load import sft_rows_of

FIRST = 8
"""How many of each expert's first rows are rendered with its base's chat template before anything starts."""


def gather_sft_data(recipe: Recipe) -> dict[str, SftDataInfo]:
    """A description of each expert's SFT data, by model name.

    Raises SpartaError naming the model if data is missing, or if the chat template of its base cannot render one of the rows that are tried:
    the first ones, and those with the most turns, with and without a system turn.
    """
    experts = recipe.pool.experts
    bases = {base_folder(recipe, model) for model in experts}
    renderers = {base: sft_renderer(recipe, base, recipe.chat.options_now()) for base in bases}
    scored = held_out((task_named(name, recipe.data) for name in recipe.scored_on if experts), recipe.data)
    found = {}
    for model in experts:
        chats = _read(recipe, model)
        for chat in _rows_to_try(chats):
            rendered(renderers[base_folder(recipe, model)], model, chat)
        found[model.name] = msgspec.structs.replace(
            _described(model, chats), held_out=sum(map(scored.asks, chats))
        )
    return found


def notes_on_sft_data(run: Run) -> Iterator[str]:
    """Warnings about the experts' SFT data, one sentence each."""
    folder, tasks = folder_of(run.recipe.data), ", ".join(run.recipe.scored_on)
    for model in run.recipe.pool.experts:
        assert model.sft is not None
        info, data = run.sft_data[model.name], model.sft.data
        remedy = f"run {command_to_prepare(folder, data)} again" if model.sft.is_prepared else "take them out"
        if info.held_out:
            yield (
                f"{model.name} is trained on validation or test questions of {tasks} ({info.held_out:,} of {info.rows:,} rows of {data}), "
                f"which inflates its scores there: {remedy} before a run begins"
            )


def sft_rows_of_expert(run: Run, model: Model) -> list[Chat]:
    """The rows that `model` is trained on. Raises SpartaError if they changed since the run began."""
    chats = _read(run.recipe, model)
    known, now = run.sft_data[model.name], _described(model, chats)
    if now.sha256 != known.sha256:
        changed = f"{known.rows} rows, now {now.rows}" if now.rows != known.rows else "other content"
        raise SpartaError(
            f"model {model.name}: {known.data} was changed since the run began ({changed}): restore it, or begin anew with another --state"
        )
    return chats


def sft_renderer(recipe: Recipe, base: str, chat: ChatOptions) -> Renderer:
    """The renderer of rows for experts on `base`. Its context length is the maximum length of a row."""
    if recipe.engine.kind == "scripted":
        return Renderer(ByteTokenizer(), recipe.pool.sft.max_length, chat)
    return load_renderer(base, recipe.pool.sft.max_length, recipe.pool.trust_remote_code, chat)


def rendered(renderer: Renderer, model: Model, chat: Chat) -> list[SftSequence]:
    """The SFT examples of a row: see `sft_examples`. Raises SpartaError naming model, data and row if it cannot be rendered."""
    assert model.sft is not None
    try:
        return sft_examples(renderer, chat.messages)
    except SpartaError as error:
        raise SpartaError(f"model {model.name}: row {chat.row_id} of {model.sft.data}: {error}") from None


def seed_of_expert(recipe: Recipe, name: str) -> int:
    """The seed of one expert's training: for its initial weights and the order of its rows."""
    return rng.seed_of(recipe.seed, 0, "sft", name) % 2**31


def _rows_to_try(chats: Sequence[Chat]) -> list[Chat]:
    """Rows that exercise a chat template: the first ones, and the row with the most turns for each role that comes first in a row."""
    by_turns = sorted(chats, key=lambda chat: len(chat.messages))
    longest = {chat.messages[0].role: chat for chat in by_turns}
    return [*chats[:FIRST], *longest.values()]


def _read(recipe: Recipe, model: Model) -> list[Chat]:
    sft = model.sft
    assert sft is not None
    try:
        return sft_rows_of(sft.data, folder_of(recipe.data), sft.size, recipe.seed)
    except SpartaError as error:
        raise type(error)(f"model {model.name}: {error}") from None


def _described(model: Model, chats: Sequence[Chat]) -> SftDataInfo:
    assert model.sft is not None
    digest, characters = hashlib.sha256(), 0
    for chat in chats:
        digest.update(files.encode_row(chat))
        characters += sum(len(message.content) for message in chat.messages)
    return SftDataInfo(model.sft.data, len(chats), characters, digest.hexdigest())
