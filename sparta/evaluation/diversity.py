"""How much texts differ: the metrics of Tables 2 and 8 and of Figure 6 (section 5, appendix C.8). Pure: texts in, numbers out.

The paper gives formulas for the distances, and names alone for the entropies; what it leaves open is decided here and said in the docstrings.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

ORDERS = 4
"""BLEU counts n-grams of one to four words, with equal weight (C.8)."""
ENTROPIES = ("char", "word", "2-gram", "3-gram", "pos")
"""The entropies of Table 8."""
_RECENT = 4096
"""Texts whose tokens are remembered: those of one prompt occur in several sets."""


def edit_distance(texts: Sequence[str]) -> float | None:
    """Mean over all pairs of d_edit(r1, r2) = EditDistance(r1, r2) / max(|r1|, |r2|), in characters (C.8, "Edit Distance"); 0 to 1.

    Two empty texts are equal: 0. None for fewer than two texts.
    """
    from rapidfuzz import process
    from rapidfuzz.distance import Levenshtein

    if len(texts) < 2:
        return None
    first, second = zip(*combinations(texts, 2), strict=True)
    distances = process.cpdist(first, second, scorer=Levenshtein.normalized_distance, dtype="float64")
    return float(distances.mean())


def bleu_distance(texts: Sequence[str]) -> float | None:
    """Mean over all pairs of d_BLEU(r1, r2) = 1 - BLEU(r1, r2) (C.8, "BLEU Distance"); 0 to 1. None for fewer than two texts.

    BLEU is sacrebleu's sentence BLEU from 0 to 1: tokenizer 13a, up to four words with equal weight, exponential smoothing (the smoothing of C.8),
    and for texts of fewer than four words the orders that they have. It is not symmetric because of its brevity penalty, and the paper does not say
    which response is the reference; here each pair counts in both directions, so the order of texts does not matter.
    """
    import numpy as np
    from sacrebleu.metrics.bleu import BLEU

    if len(texts) < 2:
        return None
    tokens = [_tokens(text) for text in texts]
    totals = [[max(0, len(each) - n) for n in range(ORDERS)] for each in tokens]
    pairs = combinations(range(len(texts)), 2)
    scores = [
        # With lists of its own, because sacrebleu may change what it is given.
        BLEU.compute_bleu(
            list(matches),
            list(totals[a]),
            len(tokens[a]),
            len(tokens[b]),
            smooth_method="exp",
            effective_order=True,
        ).score
        for pair, matches in zip(pairs, np.stack(list(_matches(tokens)), axis=1).tolist(), strict=True)
        for a, b in (pair, pair[::-1])
    ]
    # 100 times the precision of equal texts is only nearly 100.
    return max(0.0, 1.0 - sum(scores) / len(scores) / 100)


def embedding_distance(embeddings: "NDArray[np.float32]") -> float | None:
    """Mean over all pairs of d_embed(r1, r2) = 1 - cos(e1, e2) (C.8, "Embedding Distance"); 0 to 2. None for fewer than two.

    embeddings: [n, d], in any length.
    """
    import numpy as np

    if len(embeddings) < 2:
        return None
    unit = _unit(embeddings)
    first, second = np.triu_indices(len(unit), k=1)
    return float(1.0 - np.clip((unit @ unit.T)[first, second], -1.0, 1.0).mean())


def cosines(a: "NDArray[np.float32]", b: "NDArray[np.float32]") -> "NDArray[np.float64]":
    """cos(a_i, b_i) of each row [n, d], the semantic similarity of Table 8; from -1 to 1."""
    import numpy as np

    return np.asarray(np.clip((_unit(a) * _unit(b)).sum(axis=1), -1.0, 1.0))


@dataclass(frozen=True)
class TextEntropies:
    """H = -sum_x p(x) log2 p(x) in bits, p(x) the share of x in one text (C.8 names them; unit and units are ours).

    char: characters, white space included. word: words, lower case. two, three: sequences of 2 and 3 words. pos: parts of speech (Penn tags) of
    words and punctuation. None where the text has none of the kind.
    """

    char: float | None
    word: float | None
    two: float | None
    three: float | None
    pos: float | None

    @property
    def by_name(self) -> dict[str, float | None]:
        """The values, by the names in ENTROPIES."""
        return dict(zip(ENTROPIES, (self.char, self.word, self.two, self.three, self.pos), strict=True))


def entropies(text: str) -> TextEntropies:
    """The entropies of `text`."""
    words = words_of(text)
    return TextEntropies(
        char=entropy(text),
        word=entropy(words),
        two=entropy(pairwise(words)),
        three=entropy(zip(words, words[1:], words[2:], strict=False)),
        pos=entropy(parts_of_speech(text)),
    )


def entropy(symbols: Iterable[Hashable]) -> float | None:
    """Shannon's entropy of the distribution of `symbols`, in bits; None if there are none."""
    from math import log2

    counts = Counter(symbols).values()
    total = sum(counts)
    if not total:
        return None
    # Equal counts of one symbol would give -0.0.
    return max(0.0, log2(total) - sum(count * log2(count) for count in counts) / total)


def words_of(text: str) -> list[str]:
    """The words of `text` in lower case: letters, digits and underscores, with apostrophes inside; punctuation is left out."""
    import regex

    return list(regex.findall(r"\w+(?:['’]\w+)*", text.lower()))


def parts_of_speech(text: str) -> list[str]:
    """The Penn Treebank tags of words and punctuation, by TextBlob's English tagger: a lexicon and rules in plain text files of the package.

    It needs no download. For other languages the tags mean little.
    """
    from textblob.en import tag

    return [label for _, label in tag(text)]


def _unit(vectors: "NDArray[np.float32]") -> "NDArray[np.float64]":
    """`vectors` [n, d] with length 1. Raises ValueError for a vector without direction."""
    import numpy as np

    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and lengths.all()):
        raise ValueError("an embedding is zero or not finite, so it has no direction")
    return np.asarray(wide / lengths)


@lru_cache(maxsize=_RECENT)
def _tokens(text: str) -> tuple[str, ...]:
    """What BLEU counts in `text`: words and punctuation."""
    return tuple(_tokenizer()(text.strip()).split())


@lru_cache(maxsize=1)
def _tokenizer() -> "Tokenizer13a":
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    return Tokenizer13a()  # type: ignore[no-untyped-call]


def _matches(texts: Sequence[tuple[str, ...]]) -> "Iterator[NDArray[np.int64]]":
    """By order, from one token to ORDERS: of each two texts, in the order of `combinations`, the n-grams that both have.

    An n-gram counts as often as it occurs in the text that has fewer.
    """
    import numpy as np

    known: dict[str, int] = {}
    numbers = [
        np.array([known.setdefault(token, len(known)) for token in text], dtype=np.int64) for text in texts
    ]
    first, second = np.triu_indices(len(texts), k=1)
    grams = numbers
    for order in range(ORDERS):
        if order:
            # A number for each longer n-gram: of the shorter one before, and of the token after it.
            longer = [g[:-1] * len(known) + each[order:] for g, each in zip(grams, numbers, strict=True)]
            lengths = np.cumsum([len(each) for each in longer])[:-1]
            grams = np.split(np.unique(np.concatenate(longer), return_inverse=True)[1], lengths)
        size = 1 + max((int(each.max()) for each in grams if len(each)), default=0)
        table = np.stack([np.bincount(each, minlength=size) for each in grams])
        shared = table[:, (table > 0).sum(axis=0) > 1]
        yield np.minimum(shared[first], shared[second]).sum(axis=1)
