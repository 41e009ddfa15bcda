"""A tiny sequence classifier with random weights, for preference models: real files, real code paths, arbitrary but constant preferences."""

from pathlib import Path

from sparta.engines.preference_model import MARKERS
from support.tiny_models import make_tokenizer


def classifier(folder: Path, labels: int = 1, ranker: bool = False) -> str:
    """A tiny Qwen2 for sequence classification."""
    import torch
    from transformers import Qwen2Config, Qwen2ForSequenceClassification

    size = make_tokenizer(folder, added=dict.fromkeys(MARKERS, True) if ranker else {})
    config = Qwen2Config(
        vocab_size=size + len(MARKERS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        num_labels=labels,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    model = Qwen2ForSequenceClassification(config)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    model.save_pretrained(folder)
    return str(folder)
