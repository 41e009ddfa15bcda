"""What happens in a batch between two forward passes: sampling a token for every row, and ending rows.

`Sampler` and `Ending` plug into `transformers`' generate in its greedy mode. A row's samples depend only on its own
seed and logits, so a request gets the same text in any batch.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparta.engines.base import Sampling

if TYPE_CHECKING:
    from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_SALTS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


class Sampler:
    """A logits processor that samples exactly from the warped distribution, by the Gumbel-max trick.

    Warping is that of transformers: temperature, then top-k, then top-p. The noise of a token is a hash
    (splitmix64) of the row's seed, the step and the token id: there is no generator state, and a token keeps its
    noise when rounding errors reorder nearly equal logits.
    """

    def __init__(self, sampling: Sampling, seeds: Sequence[int], prompt_width: int, device: Any) -> None:
        import torch

        self.sampling = sampling
        self.prompt_width = prompt_width
        self.seeds = torch.tensor(list(seeds), dtype=torch.int64, device=device)

    def __call__(self, input_ids: "Tensor", scores: "Tensor") -> "Tensor":
        """`scores` [rows, vocabulary] with all but the sampled token set to -inf."""
        if self.sampling.temperature == 0:
            return scores
        vocabulary = scores.shape[-1]
        logits, tokens = (scores / self.sampling.temperature).topk(
            min(self.sampling.top_k or vocabulary, vocabulary)
        )
        if self.sampling.top_p < 1:
            probabilities = logits.softmax(-1)
            above = probabilities.cumsum(-1) - probabilities
            logits = logits.masked_fill(above >= self.sampling.top_p, float("-inf"))
        noise = gumbel(self.seeds, input_ids.shape[1] - self.prompt_width, tokens)
        chosen = tokens.gather(-1, (logits + noise).argmax(-1, keepdim=True))
        return scores.fill_(float("-inf")).scatter_(-1, chosen, 0.0)


def gumbel(seeds: "Tensor", step: int, tokens: "Tensor") -> "Tensor":
    """Standard Gumbel noise, float64, for `tokens` (ids, [rows, candidates]) at `step`; seeds: [rows]."""
    state = _mix(seeds + _signed(_GOLDEN * (step + 1)))
    bits = _mix(state[:, None] + (tokens + 1) * _signed(_GOLDEN))
    uniform = (_shifted(bits, 11).double() + 0.5) * 2.0**-53
    noise: Tensor = -(-uniform.log()).log()
    return noise


def _mix(x: "Tensor") -> "Tensor":
    x = (x ^ _shifted(x, 30)) * _signed(_SALTS[0])
    x = (x ^ _shifted(x, 27)) * _signed(_SALTS[1])
    return x ^ _shifted(x, 31)


def _shifted(x: "Tensor", bits: int) -> "Tensor":
    # Shifting an int64 copies the sign bit, but splitmix64 is defined on unsigned numbers.
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


class StopStrings:
    """Finds rows whose completion contains one of `stops`.

    Only a token that contains the last character of a stop string can complete one, so text is decoded only for
    rows that end in such a token.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str], vocabulary: int, device: Any) -> None:
        import torch

        self.tokenizer = tokenizer
        self.stops = tuple(stops)
        last = {stop[-1] for stop in stops}
        if any(not character.isascii() or character == " " for character in last):
            # Decoded alone, a token may not show a part of a character or a leading space.
            self.completing = torch.ones(vocabulary, dtype=torch.bool, device=device)
            return
        texts = tokenizer.batch_decode([[token] for token in range(min(len(tokenizer), vocabulary))])
        showing = [any(character in text for character in last) for text in texts]
        showing += [False] * (vocabulary - len(showing))
        self.completing = torch.tensor(showing, dtype=torch.bool, device=device)

    def found(self, completions: "Tensor", active: "Tensor") -> "Tensor":
        """Which of the `active` rows contain a stop string, [rows]; completions: [rows, tokens so far]."""
        hit = active & self.completing[completions[:, -1]]
        for row in hit.nonzero().flatten().tolist():
            text = self.tokenizer.decode(completions[row].tolist(), skip_special_tokens=True)
            hit[row] = any(stop in text for stop in self.stops)
        return hit


class Ending:
    """A stopping criterion that records where and why each row ended.

    limits: [rows], most new tokens. ends: the end-of-sequence ids. lengths: [rows], tokens so far.
    stopped: [rows], False for a row that was cut off at its limit.
    """

    def __init__(
        self,
        prompt_width: int,
        limits: Sequence[int],
        ends: Sequence[int],
        stops: StopStrings | None,
        device: Any,
    ) -> None:
        import torch

        self.prompt_width = prompt_width
        self.stops = stops
        self.limits = torch.tensor(list(limits), device=device)
        self.ends = torch.tensor(list(ends), dtype=torch.int64, device=device)
        self.done = torch.zeros(len(limits), dtype=torch.bool, device=device)
        self.stopped = torch.zeros(len(limits), dtype=torch.bool, device=device)
        self.lengths = torch.zeros(len(limits), dtype=torch.int64, device=device)

    def __call__(self, input_ids: "Tensor", scores: "Tensor", **_: Any) -> "Tensor":
        import torch

        active = ~self.done
        self.lengths += active
        stopped = torch.isin(input_ids[:, -1], self.ends)
        if self.stops is not None:
            stopped |= self.stops.found(input_ids[:, self.prompt_width :], active & ~stopped)
        self.stopped |= stopped & active
        self.done |= stopped | (self.lengths >= self.limits)
        return self.done
