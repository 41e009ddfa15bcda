"""What experts of the pool are trained on: read from where the recipe says, noted down when a run begins, and the same ever after."""

import hashlib

from sparta import rng
from sparta.errors import SpartaError
from sparta.recipe import Recipe
from sparta.recipe_pool import Model
from sparta.store import files
from sparta.store.records import Lessons
from sparta.store.run import Run
from sparta.tasks.chats import Chat
from sparta.tasks.lessons import lessons_of
from sparta.tasks.prepared import folder_of


def gather_lessons(recipe: Recipe) -> dict[str, Lessons]:
    """What each expert is trained on that is trained from data, by name. Raises SpartaError naming the model where that cannot be had."""
    return {model.name: _described(model, _read(recipe, model)) for model in recipe.pool.taught}


def lessons_for(run: Run, model: Model) -> list[Chat]:
    """The rows that `model` is trained on. Raises SpartaError where they are no longer those that the run began with."""
    chats = _read(run.recipe, model)
    known, now = run.lessons[model.name], _described(model, chats)
    if now != known:
        changed = f"{known.rows} rows, now {now.rows}" if now.rows != known.rows else "other content"
        raise SpartaError(
            f"model {model.name}: {known.data} was changed since the run began ({changed}): restore it, or begin anew with another --state"
        )
    return chats


def seed_of_expert(recipe: Recipe, name: str) -> int:
    """The seed of all that is random in the training of one expert: its first weights, and the order of its rows."""
    return rng.seed_of(recipe.seed, 0, "sft", name) % 2**31


def _read(recipe: Recipe, model: Model) -> list[Chat]:
    lesson = model.sft
    assert lesson is not None
    try:
        return lessons_of(lesson.data, folder_of(recipe.data), lesson.size, recipe.seed)
    except SpartaError as error:
        raise SpartaError(f"model {model.name}: {error}") from None


def _described(model: Model, chats: list[Chat]) -> Lessons:
    assert model.sft is not None
    digest, characters = hashlib.sha256(), 0
    for chat in chats:
        digest.update(files.encode_row(chat))
        characters += sum(len(message.content) for message in chat.messages)
    return Lessons(model.sft.data, len(chats), characters, digest.hexdigest())
