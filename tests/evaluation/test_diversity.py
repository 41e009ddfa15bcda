"""The metrics of Tables 2 and 8, each against a value by hand or another formula."""

import math
from itertools import permutations

import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from sparta.evaluation.diversity import (
    ENTROPIES,
    bleu_distance,
    cosines,
    edit_distance,
    embedding_distance,
    entropies,
    entropy,
    parts_of_speech,
    words_of,
)

WORDS = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat", ",", "."]), max_size=12).map(
    " ".join
)
SETS = st.lists(WORDS, min_size=2, max_size=5)


def edits(a: str, b: str) -> int:
    """Wagner and Fischer's table, for comparison."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


# --- edit distance


def test_the_edit_distance_is_normalised_by_the_longer_text() -> None:
    # kitten, sitting: two substitutions and an insertion.
    assert edit_distance(["kitten", "sitting"]) == pytest.approx(3 / 7)
    assert edit_distance(["same", "same"]) == 0
    assert edit_distance(["abc", "xyz"]) == 1
    assert edit_distance(["", ""]) == 0 and edit_distance(["", "ab"]) == 1
    # The three pairs of ab, ad, cd: 1/2, 2/2, 1/2.
    assert edit_distance(["ab", "ad", "cd"]) == pytest.approx(2 / 3)


@given(SETS)
def test_the_edit_distance_is_that_of_the_table_of_wagner_and_fischer(texts: list[str]) -> None:
    pairs = list(permutations(texts, 2))
    expected = mean([edits(a, b) / max(len(a), len(b), 1) for a, b in pairs])
    assert edit_distance(texts) == pytest.approx(expected)


# --- BLEU


def test_the_bleu_distance_by_hand() -> None:
    # a b c d e against a b c d f: precisions 4/5, 3/4, 2/3, 1/2, no brevity penalty, the same in both directions.
    by_hand = 1 - (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** (1 / 4)
    assert bleu_distance(["a b c d e", "a b c d f"]) == pytest.approx(by_hand)
    # a b against a b c d: precisions 1 and 1, penalty exp(1 - 4/2); the other way 2/4, 1/3, and 0 of 2 and 0 of 1 smoothed to 1/(2*2) and 1/(4*1).
    short, long = math.exp(-1), (2 / 4 * 1 / 3 * 1 / 4 * 1 / 4) ** (1 / 4)
    assert bleu_distance(["a b", "a b c d"]) == pytest.approx(1 - (short + long) / 2)
    assert bleu_distance(["one", "one"]) == 0
    assert bleu_distance(["all of this", "has nothing in common"]) == 1
    assert bleu_distance(["", "word"]) == 1


@given(SETS)
def test_the_bleu_distance_is_that_of_sacrebleu_s_sentences(texts: list[str]) -> None:
    expected = mean([1 - sacrebleu.sentence_bleu(a, [b]).score / 100 for a, b in permutations(texts, 2)])
    assert bleu_distance(texts) == pytest.approx(expected, abs=1e-12)
    assert bleu_distance(texts[::-1]) == pytest.approx(bleu_distance(texts))


def test_a_set_of_one_has_no_distance() -> None:
    assert edit_distance(["alone"]) is None and bleu_distance(["alone"]) is None
    assert edit_distance([]) is None and bleu_distance([]) is None
    assert embedding_distance(np.ones((1, 3), dtype=np.float32)) is None


# --- embeddings


def test_the_embedding_distance_is_one_minus_the_cosine() -> None:
    # Right angle, same direction, and 45 degrees twice, in any length.
    vectors = np.array([[2, 0], [0, 5], [3, 3]], dtype=np.float32)
    assert embedding_distance(vectors) == pytest.approx((1 + 2 * (1 - math.sqrt(0.5))) / 3)
    assert embedding_distance(vectors[[0, 0]]) == pytest.approx(0)
    assert embedding_distance(np.array([[1, 0], [-1, 0]], dtype=np.float32)) == pytest.approx(2)
    assert cosines(vectors[[0, 0]], vectors[[1, 2]]).tolist() == pytest.approx([0, math.sqrt(0.5)])


@pytest.mark.parametrize("broken", [0.0, float("nan"), float("inf")])
def test_an_embedding_without_direction_is_refused(broken: float) -> None:
    vectors = np.array([[1, 0], [broken, 0]], dtype=np.float32)
    with pytest.raises(ValueError, match="no direction"):
        embedding_distance(vectors)


# --- entropies


def test_entropies_by_hand() -> None:
    assert entropy("aabb") == 1 and entropy("abcd") == 2 and entropy("aaaa") == 0
    assert entropy("aaab") == pytest.approx(0.75 * math.log2(4 / 3) + 0.25 * 2)
    assert entropy([]) is None
    found = entropies("To be or not to be").by_name
    # Words: to and be twice, or and not once; of five pairs (to, be) twice; four triples, all different.
    assert found["word"] == pytest.approx(2 * (1 / 3) * math.log2(3) + 2 * (1 / 6) * math.log2(6))
    assert found["2-gram"] == pytest.approx(0.4 * math.log2(2.5) + 3 * 0.2 * math.log2(5))
    assert found["3-gram"] == 2
    assert tuple(found) == ENTROPIES


def test_a_text_that_is_too_short_has_no_entropy_of_that_kind() -> None:
    found = entropies("mat").by_name
    assert found == {"char": math.log2(3), "word": 0, "2-gram": None, "3-gram": None, "pos": 0}
    assert set(entropies("").by_name.values()) == {None}


def test_words_have_no_case_and_no_punctuation() -> None:
    assert words_of("Don't stop, it's 3 o’clock: STOP!") == ["don't", "stop", "it's", "3", "o’clock", "stop"]


def test_parts_of_speech_are_tagged_without_a_download() -> None:
    assert parts_of_speech("The quick dog runs.") == ["DT", "JJ", "NN", "VBZ", "."]
    # A determiner, an adjective, three nouns or so: the entropy of the tags, not of the words.
    assert entropies("dogs dogs cats cats").pos == 0


@given(st.text(max_size=60))
def test_any_text_has_entropies_that_are_not_negative(text: str) -> None:
    assert all(value is None or value >= 0 for value in entropies(text).by_name.values())
    assert edit_distance([text, text]) == 0 and bleu_distance([text, "x"]) is not None
