"""Preference models for SPPO: the probability that one answer is preferred to another, from a reward model or a pairwise ranker.

Both are sequence classifiers of transformers with one label. A reward model reads one answer, in its chat template if it has one; the probability
is the sigmoid of the difference of two rewards. A ranker reads the question and two answers after the markers of PairRM; its logit is for the
first answer. Both orders are averaged, which removes position bias.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from sparta.chat.judge_prompts import question_text
from sparta.chat.template import Message
from sparta.errors import SpartaError

MARKERS = ("<|source|>", "<|candidate1|>", "<|candidate2|>")
"""The tokens before question, first and second answer in the input of a ranker."""
Kind = Literal["reward", "ranker"]


@dataclass(frozen=True)
class Preferred:
    """probabilities: [n, n], that the row's answer is preferred to the column's; 1/2 on the diagonal. tokens: read to compute them."""

    probabilities: tuple[tuple[float, ...], ...]
    tokens: int


class PreferenceTexts:
    """Turns texts into the token ids that a preference model reads. Raises SpartaError if the model or a text is unusable."""

    def __init__(self, kind: Kind, folder: str, trust_remote_code: bool = False) -> None:
        from transformers import AutoConfig, AutoTokenizer

        self.kind, self.folder = kind, folder
        try:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        except (OSError, ValueError) as error:
            raise SpartaError(
                f"baseline.preference.model: {folder} cannot be loaded ({str(error).partition(chr(10))[0]}): name the folder of a sequence classifier"
            ) from error
        if not Path(folder).is_dir() or config.num_labels != 1:
            raise SpartaError(
                f"baseline.preference.model: {folder} has {config.num_labels} labels, but a {kind} has one: name a sequence classifier with one label"
            )
        self.limit = int(getattr(config, "max_position_embeddings", 0) or self.tokenizer.model_max_length)
        if kind == "ranker":
            for marker in MARKERS:
                if len(self._ids(marker)) != 1:
                    raise SpartaError(
                        f"baseline.preference.model: {folder} has no single token {marker}, which marks the texts of a ranker: name a ranker in "
                        "PairRM's format, or set kind to reward"
                    )

    def rewarded(self, question: Sequence[Message], answer: str) -> list[int]:
        """The token ids of a reward model's input."""
        turns = [*question, Message("assistant", answer)]
        if self.tokenizer.chat_template:
            ids = self.tokenizer.apply_chat_template(
                [{"role": turn.role, "content": turn.content} for turn in turns],
                tokenize=True,
                return_dict=False,
            )
            return self._readable(list(ids), answer)
        return self._readable(list(self.tokenizer(question_text(question), answer)["input_ids"]), answer)

    def ranked(self, question: Sequence[Message], first: str, second: str) -> list[int]:
        """The token ids of a ranker's input."""
        texts = zip(MARKERS, (question_text(question), first, second), strict=True)
        ids = [
            token for marker, text in texts for token in (*self._ids(marker), *self._ids(text, plain=True))
        ]
        frame = (self.tokenizer.cls_token_id, self.tokenizer.sep_token_id)
        before, after = ([] if token is None else [token] for token in frame)
        return self._readable([*before, *ids, *after], first)

    def _ids(self, text: str, plain: bool = False) -> list[int]:
        """plain: read special tokens in the text as ordinary characters."""
        return list(self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=plain))

    def _readable(self, ids: list[int], text: str) -> list[int]:
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and unknown in ids:
            raise SpartaError(
                f"baseline.preference.model: the tokenizer of {self.folder} has no tokens for a part of its input, with the answer {text[:80]!r}: name a model "
                "whose tokenizer covers this language"
            )
        if len(ids) > self.limit:
            raise SpartaError(
                f"baseline.preference.model: {self.folder} reads at most {self.limit} tokens, but a question with its answer has {len(ids)}: name a model with a "
                "longer context, or lower generation.max_new_tokens"
            )
        return ids


class PreferenceScorer:
    """A preference model in memory. dtype, device: as in training (see sparta.training.loading)."""

    def __init__(self, texts: PreferenceTexts, dtype: str, device: str, trust_remote_code: bool) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification

        self._texts = texts
        try:
            model = AutoModelForSequenceClassification.from_pretrained(
                texts.folder,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
            )
        except (OSError, ValueError) as error:
            raise SpartaError(
                f"baseline.preference.model: {texts.folder} cannot be loaded ({str(error).partition(chr(10))[0]}): name the folder of a sequence classifier"
            ) from error
        self._model: Any = model.to(device).eval()
        self._device = device

    def preferred(self, question: Sequence[Message], answers: Sequence[str]) -> Preferred:
        """The probability that each of `answers` to `question` is preferred to each other one."""
        n = len(answers)
        if self._texts.kind == "reward":
            read = [self._texts.rewarded(question, answer) for answer in answers]
            rewards = self._logits(read)
            odds = {(i, j): rewards[i] - rewards[j] for i in range(n) for j in range(n) if i != j}
            table = {pair: _sigmoid(logit) for pair, logit in odds.items()}
        else:
            pairs = list(combinations(range(n), 2))
            orders = [order for i, j in pairs for order in ((i, j), (j, i))]
            read = [self._texts.ranked(question, answers[i], answers[j]) for i, j in orders]
            first_better = dict(zip(orders, map(_sigmoid, self._logits(read)), strict=True))
            table = {}
            for i, j in pairs:
                table[i, j] = (first_better[i, j] + 1 - first_better[j, i]) / 2
                table[j, i] = 1 - table[i, j]
        rows = tuple(tuple(0.5 if i == j else table[i, j] for j in range(n)) for i in range(n))
        return Preferred(rows, sum(map(len, read)))

    def _logits(self, read: Sequence[Sequence[int]]) -> list[float]:
        """One forward pass per text, so that a logit does not depend on the batch; a prompt has few texts."""
        import torch

        found = []
        with torch.inference_mode():
            for ids in read:
                tensor = torch.tensor([list(ids)], device=self._device)
                found.append(float(self._model(input_ids=tensor).logits.float().reshape(-1)[0]))
        return found


def _sigmoid(x: float) -> float:
    from math import exp

    return 1 / (1 + exp(-x)) if x >= 0 else exp(x) / (1 + exp(x))
