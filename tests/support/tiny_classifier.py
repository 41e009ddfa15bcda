"""Tiny preference models with random weights: real files, real code paths, arbitrary but constant preferences."""

from pathlib import Path
from typing import Any

from support.tiny_models import make_tokenizer


def classifier(folder: Path, labels: int = 1) -> str:
    """A tiny Qwen2 for sequence classification, with a chat template."""
    import torch
    from transformers import Qwen2Config, Qwen2ForSequenceClassification

    size = make_tokenizer(folder)
    config = Qwen2Config(
        vocab_size=size,
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
    return _save(Qwen2ForSequenceClassification(config), folder)


def bert_classifier(folder: Path) -> str:
    """A tiny BERT for sequence classification: no chat template, two types of tokens, and a vocabulary that lacks most characters."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    tokens = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *(f"{sharps}{c}" for c in CHARACTERS for sharps in ("", "##")),
    ]
    BertTokenizer(vocab={token: index for index, token in enumerate(tokens)}).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        num_labels=1,
    )
    torch.manual_seed(0)
    return _save(BertForSequenceClassification(config), folder)


def pair_ranker(folder: Path, **config: Any) -> str:
    """A tiny ranker in the format of llm-blender/PairRM-hf: its tokenizer, keys of the configuration and names of weights, as published."""
    import torch
    from safetensors.torch import save_file
    from transformers import DebertaV2Config, DebertaV2Model, DebertaV2Tokenizer

    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", "▁"]
    tokenizer = DebertaV2Tokenizer(
        vocab=[*((token, 0.0) for token in special), *((c, -1.0) for c in CHARACTERS)]
    )
    tokenizer.add_tokens(
        ["<|source|>", "<|candidate|>", "<|candidate1|>", "<|candidate2|>"], special_tokens=True
    )
    tokenizer.save_pretrained(folder)
    ids = tokenizer.convert_tokens_to_ids(["<|source|>", "<|candidate|>", "<|candidate1|>", "<|candidate2|>"])
    names = ("source_prefix_id", "cand_prefix_id", "cand1_prefix_id", "cand2_prefix_id")
    settings = DebertaV2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        relative_attention=True,
        position_buckets=8,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
        pad_token_id=0,
        architectures=["DebertaV2PairRM"],
        n_tasks=1,
        drop_out=0.05,
        sep_token_id=tokenizer.sep_token_id,
        **{**dict(zip(names, ids, strict=True)), **config},
    )
    torch.manual_seed(0)
    model = DebertaV2Model(settings)
    weights = {
        f"pretrained_model.{name}": torch.randn(value.shape) / 2 for name, value in model.state_dict().items()
    }
    for layer, shape in ((1, (16, 32)), (4, (1, 16))):
        weights[f"head_layer.{layer}.weight"] = torch.randn(shape)
        weights[f"head_layer.{layer}.bias"] = torch.randn(shape[:1])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    settings.save_pretrained(folder)
    return str(folder)


CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,?!<>|-:"


def _save(model: Any, folder: Path) -> str:
    import torch

    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    model.save_pretrained(folder)
    return str(folder)
