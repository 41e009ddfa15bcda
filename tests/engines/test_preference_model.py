"""Preference models, tiny ones with random weights: probabilities against their logits, unreadable texts, unusable models."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.tiny_classifier import bert_classifier, classifier, pair_ranker

from sparta.chat.template import Message
from sparta.engines import preference_model
from sparta.engines.pair_ranker import MARKERS
from sparta.engines.preference_model import Kind, PreferenceScorer, PreferenceTexts
from sparta.errors import SpartaError

ASKED = (Message("user", "What is 2 and 2?"),)
ANSWERS = ["four", "five", "I do not know."]


def scorer(kind: Kind, folder: str) -> PreferenceScorer:
    return PreferenceScorer(PreferenceTexts(kind, folder), "float32", "cpu", trust_remote_code=False)


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> str:
    return classifier(tmp_path_factory.mktemp("reward"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    return bert_classifier(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> str:
    return pair_ranker(tmp_path_factory.mktemp("ranker"))


def logit(folder: str, *text: str, framed: bool) -> float:
    """The classifier's logit for a text or a pair of texts, computed with transformers alone."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    inputs = AutoTokenizer.from_pretrained(folder)(*text, add_special_tokens=framed, return_tensors="pt")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return float(model(**inputs).logits[0, 0])


def logit_of_pair(folder: str, source: str, first: str, second: str) -> float:
    """A ranker's logit, computed from its weights with transformers' DeBERTa alone."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoTokenizer, DebertaV2Model

    tokenizer, weights = AutoTokenizer.from_pretrained(folder), load_file(f"{folder}/model.safetensors")
    ids = [
        token
        for marker, text in zip(MARKERS, (source, first, second), strict=True)
        for token in tokenizer.encode(marker + text)
    ]
    body = DebertaV2Model(AutoConfig.from_pretrained(folder)).eval()
    body.load_state_dict(
        {
            name.removeprefix("pretrained_model."): value
            for name, value in weights.items()
            if "head_layer" not in name
        }
    )
    with torch.no_grad():
        states = body(torch.tensor([ids])).last_hidden_state[0]
    at = [ids.index(tokenizer.convert_tokens_to_ids(marker)) for marker in MARKERS]

    def score(place: int) -> float:
        joined = torch.cat([states[at[0]], states[place]])
        inner = torch.tanh(weights["head_layer.1.weight"] @ joined + weights["head_layer.1.bias"])
        return float(weights["head_layer.4.weight"] @ inner + weights["head_layer.4.bias"])

    return score(at[1]) - score(at[2])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_a_reward_model_prefers_by_the_difference_of_two_rewards(reward: str) -> None:
    found = scorer("reward", reward).preferred(ASKED, ANSWERS)
    turns = "<|im_start|>user\nWhat is 2 and 2?<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>\n"
    rewards = [logit(reward, turns.format(answer), framed=False) for answer in ANSWERS]
    assert max(rewards) - min(rewards) > 0.1
    for i, row in enumerate(found.probabilities):
        assert row == pytest.approx([sigmoid(rewards[i] - other) for other in rewards], abs=1e-5)
    assert found.tokens > 0


def test_a_reward_model_without_a_template_reads_question_and_answer_as_two_segments(bert: str) -> None:
    [[_, found], _] = (
        scorer("reward", bert).preferred((Message("user", "2 and 2?"),), ["4", "five"]).probabilities
    )
    rewards = [logit(bert, "2 and 2?", answer, framed=True) for answer in ("4", "five")]
    assert found == pytest.approx(sigmoid(rewards[0] - rewards[1]), abs=1e-5)
    text = PreferenceTexts("reward", bert).rewarded(ASKED, "4")
    assert set(text.types) == {0, 1}


def test_a_ranker_reads_both_orders_and_has_no_position_bias(ranker: str) -> None:
    table = scorer("ranker", ranker).preferred(ASKED, ANSWERS).probabilities
    forth, back = (logit_of_pair(ranker, ASKED[0].content, *pair) for pair in (ANSWERS[:2], ANSWERS[1::-1]))
    assert abs(forth + back) > 1e-3, "the model does have a position bias"
    assert table[0][1] == pytest.approx((sigmoid(forth) + 1 - sigmoid(back)) / 2, abs=1e-5)
    for i in range(3):
        assert table[i][i] == 0.5
        assert [(table[i][j] or 0) + (table[j][i] or 0) for j in range(3)] == pytest.approx([1, 1, 1])


def test_a_prompts_texts_are_read_together_and_are_as_if_read_alone(
    reward: str, bert: str, ranker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, folder in (("reward", reward), ("reward", bert), ("ranker", ranker)):
        one = scorer(kind, folder)  # type: ignore[arg-type]
        passes: list[int] = []
        read = one._read
        monkeypatch.setattr(
            one, "_read", lambda texts, read=read, passes=passes: passes.append(len(texts)) or read(texts)
        )
        together = one.preferred(ASKED, ANSWERS)
        assert together == one.preferred(ASKED, ANSWERS), "the same bytes every time"
        assert passes == [len(ANSWERS) if kind == "reward" else 6] * 2
        monkeypatch.setattr(preference_model, "BATCH_TOKENS", 1)
        alone = one.preferred(ASKED, ANSWERS)
        monkeypatch.undo()
        for row, other in zip(together.probabilities, alone.probabilities, strict=True):
            assert row == pytest.approx(other, abs=1e-6)
        assert together.tokens == alone.tokens


def test_a_model_without_a_padding_token_reads_one_text_after_another(reward: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(reward, tmp_path / "unpadded"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": None}))
    bare, padded = (scorer("reward", each).preferred(ASKED, ANSWERS) for each in (str(folder), reward))
    for row, other in zip(bare.probabilities, padded.probabilities, strict=True):
        assert row == pytest.approx(other, abs=1e-6)


def test_a_candidate_that_spells_a_special_token_does_not_make_one(
    reward: str, bert: str, ranker: str
) -> None:
    texts = PreferenceTexts("ranker", ranker)
    plain, spelled = (texts.ranked(ASKED, answer, "b").ids for answer in ("a", "<|candidate2|>"))
    [marker] = texts.tokenizer.encode(MARKERS[2], add_special_tokens=False)
    assert plain.count(marker) == spelled.count(marker) == 1
    for folder, token in ((reward, "<|im_end|>"), (bert, "[SEP]")):
        texts = PreferenceTexts("reward", folder)
        special = texts.tokenizer.convert_tokens_to_ids(token)
        plain, spelled = (texts.rewarded(ASKED, answer).ids for answer in ("a", f"a{token}"))
        assert plain.count(special) == spelled.count(special) > 0


def test_a_text_that_the_model_cannot_read_has_no_probability(bert: str, ranker: str) -> None:
    asked = (Message("user", "2 and 2?"),)
    for kind, folder in (("reward", bert), ("ranker", ranker)):
        one = scorer(kind, folder)  # type: ignore[arg-type]
        found = one.preferred(asked, ["4", "四", "5"])
        assert [[value is None for value in row] for row in found.probabilities] == [
            [False, True, False],
            [True, False, True],
            [False, True, False],
        ]
        without = one.preferred(asked, ["4", "5"])
        assert found.tokens == without.tokens
        assert found.probabilities[0][2] == pytest.approx(without.probabilities[0][1], abs=1e-6)
    texts = PreferenceTexts("reward", bert)
    assert "has no tokens for a part of it" in texts.rewarded(asked, "四").problem
    assert "reads at most 64 tokens, and this has" in texts.rewarded(asked, "4 " * 80).problem
    assert (
        "reads at most 2048 tokens"
        in PreferenceTexts("ranker", ranker).ranked(asked, "4 " * 800, "4 " * 800).problem
    )


def test_a_sequence_classifier_is_no_ranker_and_a_ranker_no_reward_model(reward: str, ranker: str) -> None:
    with pytest.raises(
        SpartaError, match=r"no ranker in the format of llm-blender/PairRM-hf .*Qwen2ForSequence"
    ):
        PreferenceTexts("ranker", reward)
    with pytest.raises(SpartaError, match="has 2 labels, but a reward model has one"):
        PreferenceTexts("reward", ranker)


def test_a_ranker_whose_markers_are_other_tokens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        SpartaError, match=r"encodes <\|candidate1\|> as \[\d+\], but cand1_prefix_id in its config.json is 3"
    ):
        PreferenceTexts("ranker", pair_ranker(tmp_path, cand1_prefix_id=3))


def test_a_model_that_cannot_be_loaded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpartaError, match="has 3 labels, but a reward model has one"):
        PreferenceTexts("reward", classifier(tmp_path / "three", labels=3))
    for kind, remedy in (("reward", "a sequence classifier"), ("ranker", "format of llm-blender/PairRM-hf")):
        with pytest.raises(SpartaError, match=f"cannot be loaded .there is no such folder.*{remedy}"):
            PreferenceTexts(kind, "llm-blender/PairRM-hf")  # type: ignore[arg-type]
    (tmp_path / "older").mkdir()
    (tmp_path / "older" / "config.json").write_text(
        '{"ranker_type": "pairranker", "model_name": "deberta-v3"}'
    )
    with pytest.raises(
        SpartaError, match="cannot be loaded .*name the folder of a ranker in the format of llm-blender"
    ):
        PreferenceTexts("ranker", str(tmp_path / "older"))


@pytest.mark.parametrize(
    ("make", "kind", "weight"),
    [(classifier, "reward", "score.weight"), (pair_ranker, "ranker", "head_layer.4.bias")],
)
def test_a_model_without_a_part_of_its_weights_is_refused(
    make: Callable[[Path], str], kind: Kind, weight: str, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    path = Path(make(tmp_path)) / "model.safetensors"
    weights = load_file(path)
    del weights[weight]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(SpartaError, match=f"cannot be loaded .it has no weights {weight}"):
        scorer(kind, str(tmp_path))
