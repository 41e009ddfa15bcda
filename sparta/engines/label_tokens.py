"""Labels of `expected` judging (ALGORITHM, Votes): the one token that each is where a judge would write it."""

from collections.abc import Iterable
from itertools import takewhile

from sparta.chat.options import UNDATED, ChatOptions
from sparta.chat.renderer import Renderer
from sparta.chat.template import Message
from sparta.engines.base import Engine, Label, ModelRef
from sparta.engines.tokenizers import load_renderer
from sparta.errors import SpartaError
from sparta.recipes.schema import Judging

_WORKING = "working\n"
"""Stands for the line that a judge writes first where it works: labels then follow a line break."""


def check_labels(
    engine: Engine,
    models: Iterable[ModelRef],
    judging: Judging,
    trust_remote_code: bool = False,
    chat: ChatOptions = UNDATED,
) -> None:
    """Raises SpartaError, naming the base, where a label of `expected` judging is not one token of its own to every model.

    Needs tokenizers, no weights; where an endpoint answers, those in the folders of the bases. Nothing is checked for other judging, which has
    no labels.
    """
    if judging.mode != "expected":
        return
    for base, model in {model.base: model for model in models}.items():
        renderer = engine.renderer(model)
        if renderer.tokenizer is None:
            renderer = load_renderer(base, renderer.context_length, trust_remote_code, chat)
        try:
            labels_of(renderer, judging)
        except SpartaError as error:
            raise SpartaError(f"base {base}: {error}") from error


def labels_of(renderer: Renderer, judging: Judging) -> tuple[Label, ...]:
    """Each label with its token id right after a judge prompt, and after the working where there is one; without one where an endpoint renders.

    A tokenizer may give a label another id there than alone. Raises SpartaError for a label that is not exactly one token
    more than what it follows, or not its own.
    """
    if renderer.tokenizer is None:
        return tuple(Label(label, None) for label in judging.labels)
    before = _end_of_prompt(renderer) + (_WORKING if judging.working else "")
    given = renderer.encode(before)
    ids = []
    for label in judging.labels:
        whole = renderer.encode(before + label)
        if len(whole) != len(given) + 1 or whole[:-1] != given:
            raise SpartaError(
                f"judging label {label!r} is not one token after the prompt for the judges' tokenizer: "
                "set judging.labels to labels of one token each"
            )
        ids.append(whole[-1])
    if len(set(ids)) != len(ids):
        raise SpartaError(
            f"two of the judging labels {', '.join(judging.labels)} are the same token: set judging.labels to distinct ones"
        )
    return tuple(Label(label, token) for label, token in zip(judging.labels, ids, strict=True))


def _end_of_prompt(renderer: Renderer) -> str:
    """What every prompt ends with after its last special token, with the empty thought that stands there where a model may think.

    Text before that has no part in how a label is cut into tokens.
    """
    prompt = renderer.combat([Message("user", "?")])
    token_ids = (prompt.token_ids or ()) + renderer.thought("", prompt.state)
    tail = list(takewhile(lambda token: token not in renderer.special_ids, reversed(token_ids)))
    return renderer.decode(tail[::-1])
