"""What experts of the pool are trained on: read from where the recipe says, noted down when a run begins, and the same ever after."""

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
"""Rows of each expert's data that are tried on the chat template of its base before anything starts."""


def gather_sft_data(recipe: Recipe) -> dict[str, SftDataInfo]:
    """What each expert is trained on that is trained from data, by name.

    Raises SpartaError naming the model where that cannot be had, and where a row of those that are tried cannot be learnt in the chat template of
    its base: the first ones, and the longest with a system turn and without, in number of turns.
    """
    experts = recipe.pool.experts
    bases = {base_folder(recipe, model) for model in experts}
    renderers = {base: sft_renderer(recipe, base, recipe.chat.options_now()) for base in bases}
    scored = held_out((task_named(name, recipe.data) for name in recipe.scored_on if experts), recipe.data)
    found = {}
    for model in experts:
        chats = _read(recipe, model)
        for chat in _telling(chats):
            rendered(renderers[base_folder(recipe, model)], model, chat)
        found[model.name] = msgspec.structs.replace(
            _described(model, chats), held_out=sum(map(scored.asks, chats))
        )
    return found


def notes_on_sft_data(run: Run) -> Iterator[str]:
    """What a person should know of the data that experts learn from, a sentence each."""
    folder, tasks = folder_of(run.recipe.data), ", ".join(run.recipe.scored_on)
    for model in run.recipe.pool.experts:
        assert model.sft is not None
        lessons, data = run.sft_data[model.name], model.sft.data
        remedy = f"run {command_to_prepare(folder, data)} again" if model.sft.is_prepared else "take them out"
        if lessons.held_out:
            yield (
                f"{model.name} learns {lessons.held_out:,} of {lessons.rows:,} rows of {data} that hold a question of validation or test of "
                f"{tasks}, so its scores there will flatter it: {remedy} before a run begins"
            )


def sft_rows_of_expert(run: Run, model: Model) -> list[Chat]:
    """The rows that `model` is trained on. Raises SpartaError where they are no longer those that the run began with."""
    chats = _read(run.recipe, model)
    known, now = run.sft_data[model.name], _described(model, chats)
    if now.sha256 != known.sha256:
        changed = f"{known.rows} rows, now {now.rows}" if now.rows != known.rows else "other content"
        raise SpartaError(
            f"model {model.name}: {known.data} was changed since the run began ({changed}): restore it, or begin anew with another --state"
        )
    return chats


def sft_renderer(recipe: Recipe, base: str, chat: ChatOptions) -> Renderer:
    """What renders rows for experts on `base`; no row may be longer than its context."""
    if recipe.engine.kind == "scripted":
        return Renderer(ByteTokenizer(), recipe.pool.sft.max_length, chat)
    return load_renderer(base, recipe.pool.sft.max_length, recipe.pool.trust_remote_code, chat)


def rendered(renderer: Renderer, model: Model, chat: Chat) -> list[SftSequence]:
    """What is learnt from a row: see `sft_examples`. Raises SpartaError naming model, data and row where it cannot be learnt."""
    assert model.sft is not None
    try:
        return sft_examples(renderer, chat.messages)
    except SpartaError as error:
        raise SpartaError(f"model {model.name}: row {chat.row_id} of {model.sft.data}: {error}") from None


def seed_of_expert(recipe: Recipe, name: str) -> int:
    """The seed of all that is random in the training of one expert: its first weights, and the order of its rows."""
    return rng.seed_of(recipe.seed, 0, "sft", name) % 2**31


def _telling(chats: Sequence[Chat]) -> list[Chat]:
    """Rows that show what a chat template does: the first, and for the roles in it the longest that begin with a system turn and without."""
    by_turns = sorted(chats, key=lambda chat: len(chat.messages))
    longest = {chat.messages[0].role: chat for chat in by_turns}
    return [*chats[:FIRST], *longest.values()]


def _read(recipe: Recipe, model: Model) -> list[Chat]:
    lesson = model.sft
    assert lesson is not None
    try:
        return sft_rows_of(lesson.data, folder_of(recipe.data), lesson.size, recipe.seed)
    except SpartaError as error:
        raise SpartaError(f"model {model.name}: {error}") from None


def _described(model: Model, chats: Sequence[Chat]) -> SftDataInfo:
    assert model.sft is not None
    digest, characters = hashlib.sha256(), 0
    for chat in chats:
        digest.update(files.encode_row(chat))
        characters += sum(len(message.content) for message in chat.messages)
    return SftDataInfo(model.sft.data, len(chats), characters, digest.hexdigest())
