"""Constrains the completions of a batch to a regular expression, token by token, with llguidance."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class Patterns:
    """A logits processor that masks, in each row, the tokens after which its text can no longer match.

    A row whose match cannot be extended ends with the first of `ends`, the end-of-sequence ids.
    matcher: from `matcher_of`. prompt_width: tokens before the completions.
    """

    def __init__(self, matcher: Any, rows: int, ends: Sequence[int], prompt_width: int) -> None:
        self._matchers = [matcher.deep_copy() for _ in range(rows)]
        self._ends = set(ends)
        self._end = ends[0]
        self._prompt_width = prompt_width
        self._over = [False] * rows

    def __call__(self, input_ids: "Tensor", scores: "Tensor") -> "Tensor":
        """`scores` [rows, vocabulary] with tokens that rule out a match set to -inf."""
        import torch
        from llguidance.torch import allocate_token_bitmask, fill_next_token_bitmask

        if input_ids.shape[1] > self._prompt_width:
            for row, token in enumerate(input_ids[:, -1].tolist()):
                self._follow(row, token)
        bitmask = allocate_token_bitmask(len(self._matchers), scores.shape[-1])
        complete = []
        for row, matcher in enumerate(self._matchers):
            if matcher.is_stopped():
                complete.append(row)
            elif not self._over[row]:
                fill_next_token_bitmask(matcher, bitmask, row)
        # 32 tokens per integer. llguidance's own function compiles a kernel first, which takes seconds and a compiler.
        allowed = (bitmask[:, :, None] >> torch.arange(32, dtype=torch.int32)) & 1
        allowed = allowed.flatten(1)[:, : scores.shape[-1]].bool().to(scores.device)
        scores = scores.masked_fill(~allowed, float("-inf"))
        if complete:
            kept = scores[complete, self._end].clone()
            scores[complete] = float("-inf")
            scores[complete, self._end] = kept
        return scores

    def _follow(self, row: int, token: int) -> None:
        """Advance the row's matcher by the chosen token; the tokens of a finished row are padding."""
        if self._over[row] or token in self._ends:
            self._over[row] = True
        elif not self._matchers[row].is_stopped():
            self._matchers[row].consume_token(token)


def matcher_of(pattern: str, tokenizer: Any, vocabulary: int) -> Any:
    """An `llguidance.LLMatcher` for `pattern`, in its initial state: it tracks a text and gives the allowed next tokens.

    vocabulary: width of the model's logits, in tokens. Raises ValueError for an invalid pattern.
    """
    from llguidance import LLMatcher
    from llguidance.hf import from_tokenizer

    grammar = LLMatcher.grammar_from_lark(grammar_of(pattern))
    matcher = LLMatcher(from_tokenizer(tokenizer, n_vocab=vocabulary), grammar)
    if error := matcher.get_error():
        raise ValueError(f"the pattern {pattern!r} cannot be used: {error}")
    return matcher


def grammar_of(pattern: str) -> str:
    """A regular expression as a grammar in llguidance's Lark format.

    no_forcing: the model chooses the tokenization, even where the pattern allows only one text.
    """
    return '%llguidance {"no_forcing": true}\nstart: /' + pattern.replace("/", r"\/") + "/\n"
