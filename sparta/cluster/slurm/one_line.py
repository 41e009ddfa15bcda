"""Text in a profile that ends up in scripts: validated by pattern, so that a mistake is named where it is made."""

import re
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator


def of_pattern(pattern: str, what: str) -> Callable[[str], str]:
    """A validator of whole texts. what: what a valid text is, for the error message."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(f"{text!r} is not {what}")
        return text

    return check


Line = Annotated[str, AfterValidator(of_pattern(r"[^\0\r\n]*[^\s\0][^\0\r\n]*", "one line of text"))]
