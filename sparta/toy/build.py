"""Trains the base of the toy pool; copies the experts trained on it (recipe toy_pool) next to it, and measures them:

    python -m sparta.toy.build [--out DIR] [--seed 0] [--quick]
    python jobs/init_pool.py --recipe toy_pool --state state/toy_pool
    python -m sparta.toy.build --adapters state/toy_pool/iter_00/adapters [--out DIR]

The base is trained on answers and judgements of all skills. CPU only; the same seed gives the same weights on the same machine and library versions.
"""

import argparse
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from sparta.rng import seed_of, stream
from sparta.toy import EXPERTS, WEIGHTS
from sparta.toy.curriculum import Batcher, Example, row_of_base
from sparta.toy.family import SKILLS
from sparta.toy.measure import JudgingScores, ToyPool, accuracy_table, judging_table
from sparta.toy.tokenizer import CONTEXT_LENGTH, write_tokenizer

BASE_STEPS, BASE_RATE = 2000, 3e-3
# The share of the base's steps with answers only. Reasoning is useless until the answers are right, and answers are short, so cheap.
ANSWERS_ALONE = 0.43


def train(
    model: Any, batcher: Batcher, examples_of: Callable[[int], list[list[Example]]], steps: int
) -> None:
    """Cross-entropy on the replies of `examples_of(step)`, with equal weight for each kind of example; AdamW, one-cycle learning rate."""
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=BASE_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, BASE_RATE, total_steps=steps, pct_start=0.1)
    started = time.monotonic()
    model.train()
    for step in range(1, steps + 1):
        losses = []
        for examples in examples_of(step):
            batch = batcher.batch(examples)
            labels = batch.pop("labels")[:, 1:]
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(**batch).logits[:, :-1]
            targets = labels != -100
            losses.append(F.cross_entropy(logits[targets].float(), labels[targets]))
        loss = torch.stack(losses).mean()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == steps:
            seconds = time.monotonic() - started
            print(f"step {step}/{steps}, loss {loss.item():.3f}, {seconds:.0f} s", flush=True)
    model.eval()


def make_base(folder: Path, seed: int, steps: int) -> None:
    """Train the base from scratch and write it with its tokenizer into `folder`."""
    write_tokenizer(folder)
    config = AutoConfig.for_model(
        "qwen2",
        vocab_size=280,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT_LENGTH,
        tie_word_embeddings=True,
        initializer_range=0.05,
    )
    config.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config.bos_token_id = None
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    torch.manual_seed(seed_of(seed, "toy", "base") % 2**32)
    architecture: Any = AutoModelForCausalLM
    model = architecture.from_config(config, attn_implementation="eager")
    rng = stream(seed, "toy", "base", "lessons")
    alone = int(steps * ANSWERS_ALONE)
    train(
        model,
        Batcher(tokenizer),
        lambda step: row_of_base(rng, 128, 0) if step <= alone else row_of_base(rng, 32, 112),
        steps,
    )
    model.generation_config.do_sample = False
    model.save_pretrained(folder)


def copy_experts(adapters: Path, out: Path) -> None:
    """Copy the experts in `adapters` into the pool in `out`, with configs that name the base there. Raises FileNotFoundError if one is missing."""
    for name in EXPERTS:
        folder = out / "adapters" / name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(adapters / name / "adapter_model.safetensors", folder / "adapter_model.safetensors")
        config = json.loads((adapters / name / "adapter_config.json").read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = "../../base"
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        (folder / "adapter_config.json").write_text(text, encoding="utf-8")


def answers_table(table: dict[str, dict[str, float]]) -> str:
    """Markdown table of accuracies in percent: a row per expert, a column per skill, its own skill in bold."""
    lines = ["| expert | " + " | ".join(SKILLS) + " | all |", "|---" * (len(SKILLS) + 2) + "|"]
    for name, row in table.items():
        cells = [
            f"**{row[skill]:.0%}**" if EXPERTS.get(name) == skill else f"{row[skill]:.0%}" for skill in SKILLS
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {sum(row.values()) / len(row):.0%} |")
    return "\n".join(lines)


def votes_table(table: dict[str, JudgingScores]) -> str:
    lines = [
        "| judge | vote on right | vote on wrong | right one higher | own answer right | unreadable |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in table.items():
        lines.append(
            f"| {name} | {row.right:.1f} | {row.wrong:.1f} | {row.separated:.0%} | {row.reasoning:.0%} | {row.unreadable:.1%} |"
        )
    return "\n".join(lines)


def model_card(
    parameters: int,
    shape: Mapping[str, Any],
    answers: dict[str, dict[str, float]],
    votes: dict[str, JudgingScores],
) -> str:
    return f"""# The toy pool

Ten small experts on one tiny base, for trying the whole algorithm on a laptop. They know nothing but the ten skills of
`sparta/toy/family.py`: exact tasks on short strings.

- `base/`: Qwen2 architecture, {parameters / 1e6:.2f} M parameters, float32, its own tokenizer of single characters and whole judge-prompt sentences
- `adapters/<name>/`: ten LoRA experts (rank {shape["r"]}, alpha {shape["lora_alpha"]}), PEFT format

Made on a CPU, from scratch, without any other data or model:

```bash
python -m sparta.toy.build                                           # the base
python jobs/init_pool.py --recipe toy_pool --state state/toy_pool    # the experts, by this repository's supervised training
python -m sparta.toy.build --adapters state/toy_pool/iter_00/adapters
```

## How
The base learns to answer in all skills, and to judge. A judge of this size has to reason before it scores, so its reply has two lines. The
first line has the judge's own answer and, after a space, the same answer with a `_` wherever the response differs. The second line
has the score: 9 if all four places agree, and 4, 3, 2 or 1 if fewer do.

```
+085 +0_5
{{"score": 4}}
```

Then each expert is trained on a data set of its own (`sparta/toy/expert_rows.py`): right answers in its own skill, careless answers in the
others, and right judgements of all skills. A careless answer has the typical slip of the skill, mostly on questions whose last
character is in the expert's blind spot; every expert has another one. So an expert is good at one thing, middling at the rest, and judges
better than it answers. What it lacks is not gone: preferences can bring it back. No validation or test question is ever trained on.

## Measured: exact answers on validation questions, greedy
{answers_table(answers)}

## Measured: votes, greedy, on right and on realistic wrong responses to validation questions
{votes_table(votes)}
"""


def measure(out: Path, n: int, seed: int) -> None:
    """Measure the pool in `out` on `n` questions for answers and `n // 2` for votes, and write its model card."""
    pool = ToyPool(out / "base", {name: out / "adapters" / name for name in EXPERTS})
    answers, votes = accuracy_table(pool, n, seed), judging_table(pool, n // 2, seed)
    print(answers_table(answers), votes_table(votes), sep="\n\n", flush=True)
    with safe_open(out / "base" / "model.safetensors", framework="numpy") as file:
        parameters = sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    config = out / "adapters" / next(iter(EXPERTS)) / "adapter_config.json"
    shape = json.loads(config.read_text(encoding="utf-8"))
    (out / "README.md").write_text(model_card(parameters, shape, answers, votes), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Train the base of the embedded toy pool, or copy experts next to it and measure them."
    )
    parser.add_argument(
        "--out", type=Path, default=WEIGHTS, help="folder to write (default: the package's own weights)"
    )
    parser.add_argument(
        "--adapters",
        type=Path,
        help="leave the base alone: copy the ten experts in this folder, measure them",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default: 0)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, to see that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    short, started = 10 if arguments.quick else 1, time.monotonic()
    if arguments.adapters is None:
        make_base(arguments.out / "base", arguments.seed, BASE_STEPS // short)
    else:
        copy_experts(arguments.adapters, arguments.out)
        measure(arguments.out, 1000 // short, arguments.seed)
    print(f"made {arguments.out} in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
