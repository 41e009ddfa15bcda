"""Whether a chat template can be trusted with prompts: it shows every turn, and nothing in it is left to chance. Tried before anything starts."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

from sparta.errors import SpartaError

Role = Literal["system", "user", "assistant"]


def require_usable(tokenizer: Any) -> None:
    """Raises SpartaError, naming the base, for several named templates of which none is the default, and for one that draws at random."""
    import jinja2

    template, base = tokenizer.chat_template, tokenizer.name_or_path
    if isinstance(template, dict):
        if "default" not in template:
            raise SpartaError(
                f"base {base} has several chat templates ({', '.join(sorted(template))}) and none of them is called default: copy the one to use "
                f"to {base}/chat_template.jinja"
            )
        template = template["default"]
    try:
        words = [word for _, kind, word in jinja2.Environment().lex(template) if kind != "whitespace"]
    except jinja2.TemplateSyntaxError as error:
        raise syntax_error(base, error) from error
    if "lipsum" in words or ("|", "random") in pairwise(words):
        raise SpartaError(
            f"the chat template of base {base} draws at random (lipsum, or the filter random), so no prompt could be rendered twice: use a base "
            "with another template"
        )


def syntax_error(base: str, error: Any) -> SpartaError:
    """error: jinja2's TemplateSyntaxError."""
    return SpartaError(
        f"the chat template of base {base} has a syntax error in line {error.lineno} ({error.message}): correct chat_template.jinja, or "
        "chat_template in tokenizer_config.json, in its folder"
    )


def probe(roles: Sequence[Role]) -> list[tuple[Role, str]]:
    """Turns with these roles, whose texts are unlike each other and anything in a template, and hold what one might escape: role and text."""
    return [
        (role, f'({place:03}/{len(roles):03}) so says\n"this" {role} turn: <é>')
        for place, role in enumerate(roles, start=1)
    ]
