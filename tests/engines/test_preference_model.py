"""Preference models, tiny ones with random weights: probabilities against their logits, and unusable models."""

import math
from pathlib import Path

import pytest
from support.tiny_classifier import classifier

from sparta.chat.template import Message
from sparta.engines.preference_model import MARKERS, Kind, PreferenceScorer, PreferenceTexts
from sparta.errors import SpartaError

ASKED = (Message("user", "What is 2 and 2?"),)
ANSWERS = ["four", "five", "I do not know."]


def scorer(kind: Kind, folder: str) -> PreferenceScorer:
    return PreferenceScorer(PreferenceTexts(kind, folder), "float32", "cpu", trust_remote_code=False)


def logit(folder: str, text: str) -> float:
    """The classifier's logit for a text, computed with transformers alone."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder).encode(text, add_special_tokens=False)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return float(model(input_ids=torch.tensor([ids])).logits[0, 0])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_a_reward_model_prefers_by_the_difference_of_two_rewards(tmp_path: Path) -> None:
    folder = classifier(tmp_path / "reward")
    found = scorer("reward", folder).preferred(ASKED, ANSWERS)
    turns = "<|im_start|>user\nWhat is 2 and 2?<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>\n"
    rewards = [logit(folder, turns.format(answer)) for answer in ANSWERS]
    assert max(rewards) - min(rewards) > 0.1
    for i, row in enumerate(found.probabilities):
        assert row == pytest.approx([sigmoid(rewards[i] - other) for other in rewards], abs=1e-5)
    assert found.tokens > 0


def test_a_ranker_reads_both_orders_and_has_no_position_bias(tmp_path: Path) -> None:
    folder = classifier(tmp_path / "ranker", ranker=True)
    table = scorer("ranker", folder).preferred(ASKED, ANSWERS).probabilities
    text = "<|source|>What is 2 and 2?<|candidate1|>{}<|candidate2|>{}"
    forth, back = (logit(folder, text.format(*pair)) for pair in (ANSWERS[:2], ANSWERS[1::-1]))
    assert table[0][1] == pytest.approx((sigmoid(forth) + 1 - sigmoid(back)) / 2, abs=1e-5)
    for i in range(3):
        assert table[i][i] == 0.5
        assert [table[i][j] + table[j][i] for j in range(3)] == pytest.approx([1, 1, 1])


def test_a_candidate_that_spells_a_marker_does_not_move_it(tmp_path: Path) -> None:
    texts = PreferenceTexts("ranker", classifier(tmp_path / "ranker", ranker=True))
    plain, spelled = (texts.ranked(ASKED, answer, "b") for answer in ("a", "<|candidate2|>"))
    [marker] = texts.tokenizer.encode(MARKERS[2], add_special_tokens=False)
    assert plain.count(marker) == spelled.count(marker) == 1


def test_a_model_without_markers_is_no_ranker(tmp_path: Path) -> None:
    with pytest.raises(SpartaError, match=r"has no single token <\|source\|>"):
        PreferenceTexts("ranker", classifier(tmp_path / "reward"))


def test_a_model_with_other_labels_or_none_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpartaError, match="has 3 labels, but a reward has one"):
        PreferenceTexts("reward", classifier(tmp_path / "three", labels=3))
    with pytest.raises(SpartaError, match="cannot be loaded"):
        PreferenceTexts("reward", str(tmp_path / "nowhere"))


def test_a_tokenizer_that_cannot_read_the_text_is_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    texts = PreferenceTexts("reward", classifier(tmp_path / "words"))
    words = Tokenizer(WordLevel({"[UNK]": 0, "What": 1, "is": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    texts.tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    with pytest.raises(SpartaError, match="has no tokens for a part of its input"):
        texts.rewarded(ASKED, "four")
    with pytest.raises(SpartaError, match="reads at most 512 tokens"):
        texts.rewarded((Message("user", "What is " * 300),), "What")
