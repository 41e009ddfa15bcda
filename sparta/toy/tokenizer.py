"""The tokenizer of the toy base: one character per token, plus the fixed sentences of judge prompts as single tokens.

A model this small handles only short prompts well. With one token per sentence, a judge prompt is about twenty tokens long. The sentences
are imported from `sparta.chat.judge_prompts`, so the two always agree. Characters are bytes as in Qwen2, so every text can be encoded.
"""

import json
import string
from pathlib import Path

from sparta.chat.judge_prompts import INTRODUCTION, JudgingMode, judging_instruction
from sparta.toy.family import SKILLS

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
LABELS = tuple(string.digits)
CONTEXT_LENGTH = 256

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def sentences() -> list[str]:
    """The added tokens that are plain text: role names, skill names and the fixed parts of a judge prompt and its reply."""
    modes: tuple[JudgingMode, ...] = ("text", "expected")
    instructions = [
        judging_instruction(mode, reasoning, LABELS) for mode in modes for reasoning in (True, False)
    ]
    return [
        *(f"{role}\n" for role in ("system", "user", "assistant")),
        *(f"{skill} " for skill in SKILLS),
        f"{INTRODUCTION}\n<question>\n",
        "\n</question>\n<response>\n",
        *(f"\n</response>\n{instruction}" for instruction in instructions),
        '{"score": ',
    ]


def write_tokenizer(folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json (with the chat template) into `folder`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

    # Qwen2's pipeline without its merges: transformers rebuilds this pipeline around the vocabulary for any model of type qwen2.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (START, END, PAD)])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in sentences()])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": END,
        "pad_token": PAD,
        "add_prefix_space": False,
        "model_max_length": CONTEXT_LENGTH,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
