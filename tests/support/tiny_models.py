"""A tiny random Qwen2 with a byte tokenizer and LoRA adapters: real files, real code paths, made in a second,
equal on every machine.

Its outputs make no sense. For trained models, see `sparta.toy`.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
MERGES = [("a", "b"), ("t", "h"), ("th", "e"), ("Ċ", "Ċ"), ("1", "0"), (".", "Ċ")]
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make_tokenizer(
    folder: Path,
    merges: list[tuple[str, str]] = MERGES,
    template: str | None = None,
    added: Mapping[str, bool] = MappingProxyType({}),
) -> int:
    """Write the files of a byte-level BPE with a few merges and a chat template, ChatML where none is given; return the number of tokens.

    added: more tokens, and whether each is a special one.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

    symbols = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(
        models.BPE(vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=list(merges))
    )
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (START, END, PAD)])
    for token, special in added.items():
        tokenizer.add_tokens([AddedToken(token, special=special, normalized=False)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": END,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "chat_template": template or CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return len(symbols) + 3


def make_base(
    folder: Path,
    *,
    layers: int = 2,
    width: int = 64,
    context: int = 512,
    seed: int = 0,
    merges: list[tuple[str, str]] = MERGES,
    template: str | None = None,
    added: Mapping[str, bool] = MappingProxyType({}),
) -> Path:
    """Write a random Qwen2 of `layers` layers, `width` wide; return `folder`."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokens = make_tokenizer(folder, merges, template, added)
    config = Qwen2Config(
        vocab_size=tokens + len(added),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=tokens - 2,
        pad_token_id=tokens - 1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(config)  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    return folder


def make_adapter(folder: Path, base: Path, *, seed: int, rank: int = 4) -> Path:
    """Write a LoRA adapter for `base` whose effect is not zero; return `folder`."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=TARGETS, task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(str(folder))
    return folder


def renamed_adapter(folder: Path, source: Path, rename: Callable[[str], str | None]) -> Path:
    """Write the adapter in `source` with renamed tensors, leaving out those without a new name; return `folder`."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, folder)
    tensors = {
        rename(name): tensor for name, tensor in load_file(source / "adapter_model.safetensors").items()
    }
    tensors.pop(None, None)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder
