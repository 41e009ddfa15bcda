"""Pair rankers in the format of llm-blender/PairRM-hf (Jiang et al. 2023): the tokens of their input, and their network.

The input is three texts, each between [CLS] and [SEP] and after a marker of its own: question, first and second answer. A DeBERTa reads it; a
head turns the states at the markers of question and answer into a score of each answer. The logit is the difference of the two scores.
"""

from typing import Any

from sparta.errors import SpartaError

ARCHITECTURE = "DebertaV2PairRM"
"""How the model's configuration names the format."""
MARKERS = ("<|source|>", "<|candidate1|>", "<|candidate2|>")
MARKER_IDS = ("source_prefix_id", "cand1_prefix_id", "cand2_prefix_id")
"""Keys of the model's configuration with the token ids of the markers."""
MOST_TOKENS = 2048
"""The length that such rankers are made for. They have no absolute positions, so their configuration does not limit it."""


def check_pair_ranker(folder: str, config: Any, tokenizer: Any) -> None:
    """Raises SpartaError if the model in `folder` is no ranker of this format."""
    if ARCHITECTURE not in (config.architectures or []):
        raise SpartaError(
            f"baseline.preference.model: {folder} is no ranker in the format of llm-blender/PairRM-hf (its config.json names {config.architectures}, not "
            f"{ARCHITECTURE}): name one, or set kind to reward"
        )
    for marker, key in zip(MARKERS, MARKER_IDS, strict=True):
        found = tokenizer.encode(marker, add_special_tokens=False)
        if found != [getattr(config, key, None)]:
            raise SpartaError(
                f"baseline.preference.model: the tokenizer of {folder} encodes {marker} as {found}, but {key} in its config.json is "
                f"{getattr(config, key, None)}: download the model again"
            )


def ids_of_pair(tokenizer: Any, question: str, first: str, second: str) -> list[int]:
    """The input of a ranker. Markers and other special tokens that a text contains are read as ordinary characters."""
    ids = []
    for marker, text in zip(MARKERS, (question, first, second), strict=True):
        ids += [
            tokenizer.cls_token_id,
            *tokenizer.encode(marker, add_special_tokens=False),
            *tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True),
            tokenizer.sep_token_id,
        ]
    return ids


def pair_ranker() -> Any:
    """The class of the network, for `from_pretrained`; its forward pass gives one logit per row, positive if the first answer is better."""
    import torch
    from torch import nn
    from transformers.models.deberta_v2.modeling_deberta_v2 import DebertaV2Model, DebertaV2PreTrainedModel

    class PairRanker(DebertaV2PreTrainedModel):  # type: ignore[no-untyped-call]
        """Its attributes have the names of the weights on disk."""

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            size = config.hidden_size
            self.pretrained_model = DebertaV2Model(config)  # type: ignore[no-untyped-call]
            self.head_layer = nn.Sequential(
                nn.Dropout(config.drop_out),
                nn.Linear(2 * size, size),
                nn.Tanh(),
                nn.Dropout(config.drop_out),
                nn.Linear(size, config.n_tasks),
            )
            self.markers = [getattr(config, key) for key in MARKER_IDS]
            self.post_init()  # type: ignore[no-untyped-call]

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            states = self.pretrained_model(input_ids, attention_mask=attention_mask).last_hidden_state
            # Each row has each marker once, so the states are in the order of the rows.
            question, *answers = (states[input_ids == marker] for marker in self.markers)
            first, second = (self.head_layer(torch.cat((question, answer), dim=-1)) for answer in answers)
            logits: torch.Tensor = (first - second).mean(dim=-1)
            return logits

    return PairRanker
