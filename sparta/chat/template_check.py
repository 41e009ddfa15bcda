"""Checks, before a run starts, that a chat template is usable: it is unambiguous and valid, does not use randomness, and shows every turn."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

from sparta.errors import SpartaError

Role = Literal["system", "user", "assistant"]


def require_usable(tokenizer: Any) -> None:
    """Raise SpartaError, naming the base, for several named templates without a default, for a syntax error and for use of randomness."""
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
            f"the chat template of base {base} uses randomness (lipsum, or the filter random), so prompts are not reproducible: use a base "
            "with another template"
        )


def syntax_error(base: str, error: Any) -> SpartaError:
    """error: jinja2's TemplateSyntaxError."""
    return SpartaError(
        f"the chat template of base {base} has a syntax error in line {error.lineno} ({error.message}): correct chat_template.jinja, or "
        "chat_template in tokenizer_config.json, in its folder"
    )


def probe(roles: Sequence[Role]) -> list[tuple[Role, str]]:
    """Test turns (role, text) with these roles. The texts are unique and hold characters that a template might escape."""
    return [
        (role, f'({place:03}/{len(roles):03}) so says\n"this" {role} turn: <é>')
        for place, role in enumerate(roles, start=1)
    ]
