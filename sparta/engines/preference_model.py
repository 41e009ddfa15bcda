"""Preference models for SPPO: the probability that one answer is preferred to another, from a reward model or a pairwise ranker.

A reward model is a sequence classifier of transformers with one label. It reads one answer, in its chat template if it has one; the probability is
the sigmoid of the difference of two rewards. A ranker (pair_ranker.py) reads the question and two answers; the probability is the sigmoid of its
logit, averaged over both orders, which removes position bias.

The texts of one prompt are read together, and never those of two prompts: so a probability depends on its prompt alone, however a run is sharded
or resumed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import exp
from pathlib import Path
from typing import Any, Literal

from sparta.chat.judge_prompts import question_text
from sparta.chat.options import UNDATED
from sparta.chat.template import ChatTemplate, Message
from sparta.engines import pair_ranker
from sparta.errors import SpartaError

Kind = Literal["reward", "ranker"]
BATCH_TOKENS = 16384
"""Most tokens of a forward pass, padding included; a single text may exceed it."""


@dataclass(frozen=True)
class Preferred:
    """probabilities: [n, n], that the row's answer is preferred to the column's; 1/2 on the diagonal, None if the model cannot read a text that it
    needs. tokens: read to compute them.
    """

    probabilities: tuple[tuple[float | None, ...], ...]
    tokens: int


@dataclass(frozen=True)
class Text:
    """One input of a preference model. types: token type ids, if the tokenizer gives any. problem: why the model cannot read it; "" if it can."""

    ids: tuple[int, ...]
    types: tuple[int, ...] = ()
    problem: str = ""


class PreferenceTexts:
    """Turns texts into the token ids that a preference model reads. Raises SpartaError if the model is unusable."""

    def __init__(self, kind: Kind, folder: str, trust_remote_code: bool = False) -> None:
        from transformers import AutoConfig, AutoTokenizer

        self.kind, self.folder = kind, folder
        if not Path(folder).is_dir():
            # transformers would look for it on the hub.
            raise _cannot_load(kind, folder, "there is no such folder")
        try:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        except (OSError, ValueError) as error:
            raise _cannot_load(kind, folder, str(error)) from error
        if kind == "ranker":
            pair_ranker.check_pair_ranker(folder, config, self.tokenizer)
            self.limit = pair_ranker.MOST_TOKENS
        else:
            if config.num_labels != 1:
                raise SpartaError(
                    f"baseline.preference.model: {folder} has {config.num_labels} labels, but a reward model has one: name a sequence classifier with one label"
                )
            limits = (getattr(config, "max_position_embeddings", 0), self.tokenizer.model_max_length)
            self.limit = int(min(limit for limit in limits if limit))

    def rewarded(self, question: Sequence[Message], answer: str) -> Text:
        """A reward model's input. Special tokens that a text contains are read as ordinary characters, here and in `ranked`."""
        if self.tokenizer.chat_template:
            template = ChatTemplate(self.tokenizer, UNDATED)
            return self._text(template.ids_of_all((*question, Message("assistant", answer))))
        encoded = self.tokenizer(question_text(question), answer, split_special_tokens=True)
        return self._text(encoded["input_ids"], encoded.get("token_type_ids", ()))

    def ranked(self, question: Sequence[Message], first: str, second: str) -> Text:
        """A ranker's input."""
        return self._text(pair_ranker.ids_of_pair(self.tokenizer, question_text(question), first, second))

    def _text(self, ids: Sequence[int], types: Sequence[int] = ()) -> Text:
        unknown = self.tokenizer.unk_token_id
        problem = ""
        if unknown is not None and unknown in ids:
            problem = "its tokenizer has no tokens for a part of it"
        elif len(ids) > self.limit:
            problem = f"it reads at most {self.limit} tokens, and this has {len(ids)}"
        return Text(tuple(ids), tuple(types), problem)


class PreferenceScorer:
    """A preference model in memory. dtype, device: as in training (see sparta.training.loading)."""

    def __init__(self, texts: PreferenceTexts, dtype: str, device: str, trust_remote_code: bool) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification

        self._texts = texts
        ranks = texts.kind == "ranker"
        loader: Any = pair_ranker.pair_ranker() if ranks else AutoModelForSequenceClassification
        try:
            model, loaded = loader.from_pretrained(
                texts.folder,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                output_loading_info=True,
                **({} if ranks else {"trust_remote_code": trust_remote_code}),
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise _cannot_load(texts.kind, texts.folder, str(error)) from error
        if missing := sorted(loaded["missing_keys"]):
            # transformers would fill them with random numbers.
            raise _cannot_load(texts.kind, texts.folder, f"it has no weights {', '.join(missing[:3])}")
        self._model: Any = model.to(device).eval()
        self._device = device
        self._padding = getattr(model.config.get_text_config(), "pad_token_id", None)

    def preferred(self, question: Sequence[Message], answers: Sequence[str]) -> Preferred:
        """The probability that each of `answers` to `question` is preferred to each other one."""
        n = len(answers)
        pairs = list(combinations(range(n), 2))
        if self._texts.kind == "reward":
            read = [self._texts.rewarded(question, answer) for answer in answers]
            rewards = self._logits(read)
            wins = [_probability(_less(rewards[i], rewards[j])) for i, j in pairs]
        else:
            orders = [order for i, j in pairs for order in ((i, j), (j, i))]
            read = [self._texts.ranked(question, answers[i], answers[j]) for i, j in orders]
            first_better = dict(zip(orders, map(_probability, self._logits(read)), strict=True))
            wins = [_mean(first_better[i, j], _rest(first_better[j, i])) for i, j in pairs]
        table: list[list[float | None]] = [[0.5] * n for _ in range(n)]
        for (i, j), probability in zip(pairs, wins, strict=True):
            table[i][j], table[j][i] = probability, _rest(probability)
        return Preferred(tuple(map(tuple, table)), sum(len(text.ids) for text in read if not text.problem))

    def _logits(self, texts: Sequence[Text]) -> list[float | None]:
        """The model's logit of each text of one prompt; None if it cannot read it."""
        readable = [text for text in texts if not text.problem]
        found: list[float] = []
        # Without a padding token, a decoder takes its logit at the last position, which must not be padding.
        size = len(readable) if self._padding is not None else 1
        longest = max((len(text.ids) for text in readable), default=1)
        size = max(1, min(size, BATCH_TOKENS // longest))
        for start in range(0, len(readable), size):
            found += self._read(readable[start : start + size])
        known = iter(found)
        return [None if text.problem else next(known) for text in texts]

    def _read(self, texts: Sequence[Text]) -> list[float]:
        """One forward pass, padded on the right."""
        import torch

        width, filler = max(len(text.ids) for text in texts), self._padding or 0

        def padded(rows: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
            return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], device=self._device)

        inputs = {
            "input_ids": padded([text.ids for text in texts], filler),
            "attention_mask": padded([[1] * len(text.ids) for text in texts], 0),
        }
        if all(text.types for text in texts):
            inputs["token_type_ids"] = padded([text.types for text in texts], 0)
        with torch.inference_mode():
            made = self._model(**inputs)
        logits = made if isinstance(made, torch.Tensor) else made.logits
        return [float(logit) for logit in logits.float().reshape(-1)]


def _cannot_load(kind: Kind, folder: str, why: str) -> SpartaError:
    remedy = (
        "a ranker in the format of llm-blender/PairRM-hf" if kind == "ranker" else "a sequence classifier"
    )
    return SpartaError(
        f"baseline.preference.model: {folder} cannot be loaded ({why.partition(chr(10))[0]}): name the folder of {remedy}"
    )


def _less(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _mean(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else (a + b) / 2


def _rest(probability: float | None) -> float | None:
    return None if probability is None else 1 - probability


def _probability(logit: float | None) -> float | None:
    """The sigmoid."""
    if logit is None:
        return None
    return 1 / (1 + exp(-logit)) if logit >= 0 else exp(logit) / (1 + exp(logit))
