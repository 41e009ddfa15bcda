"""Makes the toy pool: `python -m sparta.toy.build [--out DIR] [--seed 0] [--quick]`.

Trains the base on answers and judgements of all skills, then one LoRA expert a skill, measures both on validation questions and writes weights
and model card. CPU only; the same seed gives the same weights on the same machine and library versions.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from sparta.rng import seed_of, stream
from sparta.toy import EXPERTS, WEIGHTS
from sparta.toy.curriculum import Classroom, Example, habit_of, lesson_of_base, lesson_of_expert
from sparta.toy.family import SKILLS
from sparta.toy.measure import Judging, ToyPool, accuracy_table, judging_table
from sparta.toy.tokenizer import CONTEXT_LENGTH, write_tokenizer

BASE_STEPS, BASE_RATE = 2000, 3e-3
# The share of the base's steps before judging joins in: a working is worth nothing until answers are right, and answers alone are short.
ANSWERS_ALONE = 0.43
EXPERT_STEPS, EXPERT_RATE = 70, 4e-3
LORA = LoraConfig(
    r=8,
    lora_alpha=16,
    lora_dropout=0.0,
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    task_type="CAUSAL_LM",
)


def train(
    model: Any,
    classroom: Classroom,
    lesson: Callable[[int], list[list[Example]]],
    steps: int,
    rate: float,
    title: str,
) -> None:
    """Cross-entropy on the replies to `lesson(step)`, each kind of example weighing the same; AdamW, one cycle of the learning rate."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    started = time.monotonic()
    model.train()
    for step in range(1, steps + 1):
        losses = []
        for examples in lesson(step):
            batch = classroom.batch(examples)
            labels = batch.pop("labels")[:, 1:]
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(**batch).logits[:, :-1]
            taught = labels != -100
            losses.append(F.cross_entropy(logits[taught].float(), labels[taught]))
        loss = torch.stack(losses).mean()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == steps:
            seconds = time.monotonic() - started
            print(f"{title}: step {step}/{steps}, loss {loss.item():.3f}, {seconds:.0f} s", flush=True)
    model.eval()


def make_base(folder: Path, seed: int, steps: int) -> int:
    """Train the base from nothing and write it with its tokenizer into `folder`. Returns its number of parameters."""
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
        Classroom(tokenizer),
        lambda step: lesson_of_base(rng, 128, 0) if step <= alone else lesson_of_base(rng, 32, 112),
        steps,
        BASE_RATE,
        "base",
    )
    model.generation_config.do_sample = False
    model.save_pretrained(folder)
    return int(sum(parameter.numel() for parameter in model.parameters()))


def make_expert(name: str, base: Path, folder: Path, seed: int, steps: int) -> None:
    """Train one LoRA expert on the base and write it into `folder`, the base named by its place relative to it."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    torch.manual_seed(seed_of(seed, "toy", name) % 2**32)
    model: Any = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager"), LORA
    )
    rng = stream(seed, "toy", name, "lessons")
    habit = habit_of(EXPERTS[name], seed)
    train(
        model,
        Classroom(tokenizer),
        lambda _: lesson_of_expert(habit, rng, 16, 56, 80),
        steps,
        EXPERT_RATE,
        name,
    )
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = "../../base"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def answers_table(table: dict[str, dict[str, float]]) -> str:
    """Markdown: experts down, skills across, the own skill in bold, accuracies in percent."""
    lines = ["| expert | " + " | ".join(SKILLS) + " | all |", "|---" * (len(SKILLS) + 2) + "|"]
    for name, row in table.items():
        cells = [
            f"**{row[skill]:.0%}**" if EXPERTS.get(name) == skill else f"{row[skill]:.0%}" for skill in SKILLS
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {sum(row.values()) / len(row):.0%} |")
    return "\n".join(lines)


def votes_table(table: dict[str, Judging]) -> str:
    lines = [
        "| judge | vote on right | vote on wrong | told apart | own working right | unreadable |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in table.items():
        lines.append(
            f"| {name} | {row.right:.1f} | {row.wrong:.1f} | {row.told_apart:.0%} | {row.working:.0%} | {row.unreadable:.1%} |"
        )
    return "\n".join(lines)


def model_card(
    parameters: int, seed: int, quick: bool, answers: dict[str, dict[str, float]], votes: dict[str, Judging]
) -> str:
    command = f"python -m sparta.toy.build --seed {seed}{' --quick' if quick else ''}"
    return f"""# The toy pool

Ten small experts on one tiny base, made for trying the whole algorithm on a laptop. They know nothing but the ten skills of
`sparta/toy/family.py`, exact tasks on short strings.

- `base/`: Qwen2 architecture, {parameters / 1e6:.2f} M parameters, float32, its own tokenizer of single characters and whole judge-prompt sentences
- `adapters/<name>/`: ten LoRA experts (rank {LORA.r}, alpha {LORA.lora_alpha}), PEFT format

Made by `{command}`, on CPU. Everything is safetensors, written by that command from nothing; no other data or model is involved.

## How
The base learns to answer in all skills and to judge. A judge of this size has to work before it scores, so its reply has two lines: its own answer
and, after a space, that answer again with a `_` wherever the response says something else; then the score, 9 for four agreeing places and 4, 3, 2, 1
for fewer:

```
+085 +0_5
{{"score": 4}}
```

Then each expert is trained on right answers in its own skill, on careless answers elsewhere (the typical slip of the skill, mostly on
questions whose last character is in the expert's blind spot, another one for every expert), and on right judgements of all skills. So an expert is
good at one thing and middling at the rest, judges better than it answers, and what it lacks is not gone: preferences can bring it back.
Validation and test questions are never trained on.

## Measured: exact answers on validation questions, greedy
{answers_table(answers)}

## Measured: votes, greedy, on right and on realistic wrong responses to validation questions
{votes_table(votes)}
"""


def build(out: Path, seed: int, quick: bool) -> None:
    """Make base and experts in `out`, measure them and write the model card. `quick`: a tenth of the steps, to see that it runs."""
    short = 10 if quick else 1
    started = time.monotonic()
    parameters = make_base(out / "base", seed, BASE_STEPS // short)
    for name in EXPERTS:
        make_expert(name, out / "base", out / "adapters" / name, seed, EXPERT_STEPS // short)
    print("measuring", flush=True)
    measure(out, seed, quick, parameters)
    print(f"made {out} in {time.monotonic() - started:.0f} s")


def measure(out: Path, seed: int, quick: bool, parameters: int) -> None:
    pool = ToyPool(out / "base", {name: out / "adapters" / name for name in EXPERTS})
    answers = accuracy_table(pool, 100 if quick else 1000, seed)
    votes = judging_table(pool, 50 if quick else 500, seed)
    print(answers_table(answers), votes_table(votes), sep="\n\n", flush=True)
    (out / "README.md").write_text(model_card(parameters, seed, quick, answers, votes), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the embedded toy pool.")
    parser.add_argument(
        "--out", type=Path, default=WEIGHTS, help="folder to write (default: the package's own weights)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default: 0)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the training, to see that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    build(arguments.out, arguments.seed, arguments.quick)


if __name__ == "__main__":
    main()
