"""Labels of `expected` judging (ALGORITHM, Votes): the token id of each at the position where a judge would write it."""

from collections.abc import Iterable
from itertools import takewhile

from sparta.chat.options import UNDATED, ChatOptions
from sparta.chat.renderer import Renderer
from sparta.chat.template import Message
from sparta.engines.base import Engine, Label, ModelRef
from sparta.engines.tokenizers import load_renderer
from sparta.errors import SpartaError
from sparta.recipes.schema import Judging

_REASONING = "working\n"
"""Stands for the reasoning that a judge may write first: labels then follow a line break."""


def check_labels(
    engine: Engine,
    models: Iterable[ModelRef],
    judging: Judging,
    trust_remote_code: bool = False,
    chat: ChatOptions = UNDATED,
) -> None:
    """Raises SpartaError, naming the base, unless every label of `expected` judging is one distinct token for every model.

    Needs tokenizers but no weights; for an endpoint, the tokenizers in the folders of the bases. Other judging modes have no labels and pass.
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
    """Each label with its token id right after a judge prompt, or after the reasoning if there is any; without an id if an endpoint renders.

    The id may differ from that of the label alone. Raises SpartaError for a label that does not add exactly one token to
    the text before it, or shares its token with another.
    """
    if renderer.tokenizer is None:
        return tuple(Label(label, None) for label in judging.labels)
    before = _end_of_prompt(renderer) + (_REASONING if judging.working else "")
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
    """The text after a prompt's last special token, with an empty thought where a model may think.

    Only this text can affect how a label after it is tokenized.
    """
    prompt = renderer.combat([Message("user", "?")])
    token_ids = (prompt.token_ids or ()) + renderer.thought("", prompt.state)
    tail = list(takewhile(lambda token: token not in renderer.special_ids, reversed(token_ids)))
    return renderer.decode(tail[::-1])
