"""An exported model, loaded by the programs of others: it answers as it did in the run, and its card says what the state knows."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.scripted_run import advance, begin, sentence, typed
from support.toy_experts import begin_with_experts
from support.vllm_server import vllm_serving

from sparta.commands.export_model import ExportRequest, _chosen
from sparta.commands.model_card import Exported, model_card
from sparta.evaluation.answer import Answers
from sparta.evaluation.items import items_of
from sparta.evaluation.summary import CheckpointChoice, Scale, TaskScores, merge_into_summary, read_summary
from sparta.pool.serving import serve_command
from sparta.recipes.load import adjust
from sparta.store import files
from sparta.store.pruned import prune
from sparta.store.records import Answer, answer_key
from sparta.store.run import Run
from sparta.store.shards import read_shards
from sparta.training.adapter_folder import WEIGHTS

ITEMS = 12
APART = Path(sys.prefix) / "embeddings"
"""Where make puts lm-eval: see requirements/checks.txt."""
SCORES = Path(__file__).parents[1] / "support" / "lm_eval_scores.py"
TASK = """\
task: items
dataset_path: json
dataset_kwargs: {data_files: {validation: ITEMS}}
validation_split: validation
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: [], max_gen_toks: 8, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
"""A task of lm-eval's: questions of which the whole answer must be right."""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """M^0 of three experts of the toy pool, scored on validation and test."""
    run = begin_with_experts(
        tmp_path_factory.mktemp("toy"),
        ("adder", "halver", "picker"),
        validation=ITEMS,
        test=ITEMS,
        max_new_tokens=8,
    )
    done = typed("evaluate", run.state.root)
    assert done.returncode == 0, done.stderr
    return Run.open(run.state)


@pytest.fixture(scope="module")
def printed(toy: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """The chosen model, as adapter and merged, each with the command that the export names."""
    made = {}
    for name, options in {"adapter": [], "merged": ["--merge"]}.items():
        folder = tmp_path_factory.mktemp("exported") / name
        done = typed("export", toy.state.root, *options, "--out", folder)
        assert done.returncode == 0, done.stderr
        made[name] = folder, done.stdout.partition("try it: ")[2].strip()
    return made


@pytest.fixture(scope="module")
def exported(printed: dict[str, tuple[Path, str]]) -> dict[str, Path]:
    return {name: folder for name, (folder, _) in printed.items()}


def chosen(toy: Run) -> str:
    return read_summary(toy.state).tasks["toy"].choices[-1].checkpoint


def prompts_and_answers(toy: Run) -> tuple[list[list[dict[str, str]]], list[str]]:
    """The test items as chats, and what the chosen model answered in the run."""
    name = chosen(toy)
    rows = read_shards(Answers("toy", "test", (name,)).folder(toy), Answer)
    items = items_of(toy, "toy", "test")
    assert len(items) == ITEMS
    chats = [[{"role": turn.role, "content": turn.content} for turn in item.messages] for item in items]
    return chats, [rows[answer_key("toy", name, item.item_id)].text for item in items]


def answers_of(model: Any, tokenizer: Any, chats: list[list[dict[str, str]]]) -> list[str]:
    found = []
    for chat in chats:
        ids = tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        out = model.generate(**ids, max_new_tokens=8, do_sample=False)
        found.append(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))
    return found


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_peft_and_transformers_answer_as_the_run_did(form: str, toy: Run, exported: dict[str, Path]) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    auto = AutoPeftModelForCausalLM if form == "adapter" else AutoModelForCausalLM
    model = auto.from_pretrained(exported[form], dtype="auto")
    chats, answers = prompts_and_answers(toy)
    assert answers_of(model, AutoTokenizer.from_pretrained(exported[form]), chats) == answers


@pytest.mark.long
@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_vllm_answers_as_the_run_did_by_the_command_that_is_printed(
    form: str, toy: Run, printed: dict[str, tuple[Path, str]], tmp_path: Path
) -> None:
    from openai import OpenAI

    folder, command = printed[form]
    vllm, serve, model, *options = shlex.split(command)
    assert (vllm, serve) == ("vllm", "serve")
    served = chosen(toy).partition("-")[2] if form == "adapter" else str(folder)
    chats, answers = prompts_and_answers(toy)
    with vllm_serving(tmp_path, model, *options) as url, OpenAI(base_url=url, api_key="none") as client:
        found = [
            client.chat.completions.create(model=served, messages=chat, temperature=0, max_tokens=8)  # type: ignore[arg-type]
            for chat in chats
        ]
    assert [done.choices[0].message.content for done in found] == answers


@pytest.mark.long
def test_lm_eval_scores_it_as_the_run_did(toy: Run, exported: dict[str, Path], tmp_path: Path) -> None:
    """On the validation items, in a task written in lm-eval's own form."""
    assert (APART / "lm_eval").is_dir(), f"{APART} has no lm-eval: make long puts it there"
    rows = [
        {"question": item.messages[-1].content, "answer": item.answer}
        for item in items_of(toy, "toy", "validation")
    ]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "items.yaml").write_text(TASK.replace("ITEMS", str(tmp_path / "items.jsonl")))
    base = json.loads((exported["adapter"] / "adapter_config.json").read_text())["base_model_name_or_path"]
    models = [{"pretrained": base, "peft": str(exported["adapter"])}, {"pretrained": str(exported["merged"])}]
    home = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(APART)}
    done = subprocess.run(
        [sys.executable, SCORES, tmp_path, "items", *map(json.dumps, models)],
        capture_output=True,
        text=True,
        env={**os.environ, **home},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines()[-2:]]
    ours = read_summary(toy.state).tasks["toy"].validation[chosen(toy)]
    assert found == [{"items": ITEMS, "exact_match": ours}] * 2


def test_the_card_says_what_the_state_knows(toy: Run, exported: dict[str, Path]) -> None:
    scores = read_summary(toy.state).tasks["toy"]
    choice = scores.choices[-1]
    name = choice.checkpoint.partition("-")[2]
    for form, folder in exported.items():
        _, head, text = (folder / "README.md").read_text().split("---\n", 2)
        known = yaml.safe_load(head)
        assert known["library_name"] == {"adapter": "peft", "merged": "transformers"}[form]
        assert ("lora" in known["tags"]) == (form == "adapter")
        interval = choice.test["accuracy"]
        assert interval.mean is not None and interval.low is not None
        assert (
            f"| {100 * choice.validation:.1f} % | {100 * interval.mean:.1f} % | {100 * interval.low:.1f} % to "
            in text
        )
        assert toy.pool(0)[name].sha256 in text and toy.info.run_id in text
        assert "vllm serve" in text and "base_model" not in known
        assert str(Path.home()) not in text and str(toy.state.root) not in text


@pytest.mark.parametrize("merged", [False, True])
def test_the_card_says_in_which_precision_the_base_was_and_where_it_is_not(merged: bool, toy: Run) -> None:
    member = toy.pool(0)["adder"]
    for settings, words in (
        ([], None),
        (["engine.quantize=nf4"], "merged into the base in full precision" if merged else "load it so"),
    ):
        run = Run(toy.state, adjust(toy.recipe, settings), toy.info)
        text = model_card(Exported(run=run, t=0, member=member, base=Path("base"), merged=merged))
        assert ("in 4 bits (nf4, bitsandbytes)" in text) == (words is not None) and (words or "") in text


def test_an_exported_adapter_is_the_committed_one_with_a_base_that_others_find(
    toy: Run, exported: dict[str, Path]
) -> None:
    name = chosen(toy).partition("-")[2]
    committed = toy.state.inside(toy.pool(0)[name].adapter)
    assert files.sha256_file(exported["adapter"] / WEIGHTS) == files.sha256_file(committed / WEIGHTS)
    config = json.loads((exported["adapter"] / "adapter_config.json").read_text())
    assert Path(config["base_model_name_or_path"]).is_dir()
    assert not (exported["merged"] / "adapter_config.json").exists()
    assert len({path.stat().st_mode for folder in exported.values() for path in folder.iterdir()}) == 1


def test_a_named_model_of_a_named_iteration_is_exported(toy: Run, tmp_path: Path) -> None:
    done = typed("export", toy.state.root, "--model", "halver", "--iteration", 0, "--out", tmp_path / "x")
    assert done.returncode == 0, done.stderr
    assert "halver of iteration 0" in done.stdout


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--model", "haler"], "the pool has no model haler; did you mean halver?"),
        (["--model", "halver", "--iteration", "3"], "iteration 3 of .* is not committed"),
        (["--iteration", "0"], "'--iteration 0' needs --model|--iteration 0 needs --model"),
        (["--task", "gsm8k"], "no checkpoint was chosen on gsm8k; known tasks: toy"),
        (["--model", "halver", "--task", "toy"], "--model names the model already"),
        (["--push", "mine"], "--push mine: write it as OWNER/NAME"),
        (["--push", "me/mine"], "--push me/mine needs a token of the hub that may write: set HF_TOKEN"),
    ],
)
def test_what_cannot_be_exported_is_refused(options: list[str], why: str, toy: Run, tmp_path: Path) -> None:
    done = typed("export", toy.state.root, *options, "--out", tmp_path / "x")
    assert re.search(why, sentence(done)), done.stderr
    assert not (tmp_path / "x").exists()


def test_an_adapter_on_a_base_that_nobody_can_load_is_not_uploaded(toy: Run, tmp_path: Path) -> None:
    pushed = ("--push", "me/mine", "--out", tmp_path / "x")
    done = typed("export", toy.state.root, *pushed, HF_TOKEN="hf_x")
    assert "is not from the hub, so nobody could load it: add --merge" in sentence(done)
    assert not (tmp_path / "x").exists()


def test_a_wide_adapter_and_a_pinned_base_are_served_as_they_are(tmp_path: Path) -> None:
    files.write_json(tmp_path / "adapter_config.json", {"r": 48})
    command = serve_command("org/base", "ada", tmp_path, "hub:org/base@v2", "FOLDER")
    assert (
        command
        == "vllm serve org/base --revision v2 --enable-lora --max-lora-rank 64 --lora-modules ada=FOLDER"
    )
    assert "--revision" not in serve_command("/models/base", "ada", tmp_path, "hub:org/base@v2")


def test_a_choice_made_on_another_task_counts(tmp_path: Path) -> None:
    run = begin(tmp_path, combats=4)
    advance(run, 1)
    choice = CheckpointChoice(
        "best of the last pool", f"iter_01-{run.models[1]}", "trained", Scale("accuracy", 1.0), (1,), 0.5
    )
    scores = TaskScores([Scale("accuracy", 1.0)], {}, "", choices=[choice])
    merge_into_summary(run.state, {"transfer": scores})
    assert _chosen(run, ExportRequest(run.state.root)) == (1, run.models[1])


def test_a_folder_that_exists_is_left_alone(toy: Run, exported: dict[str, Path]) -> None:
    assert "exists already" in sentence(typed("export", toy.state.root, "--out", exported["adapter"]))


def test_a_run_that_was_not_scored_and_an_adapter_that_is_gone_are_refused(tmp_path: Path) -> None:
    run = begin(tmp_path, combats=4)
    advance(run, 1)
    assert "was chosen on validation yet: run" in sentence(typed("export", run.state.root))
    adapter = run.state.inside(run.pool(1)[run.models[0]].adapter) / WEIGHTS
    whole = adapter.read_bytes()
    adapter.write_bytes(whole[:-1] + b"x")
    assert "was changed since its commit" in sentence(
        typed("export", run.state.root, "--model", run.models[0])
    )
    adapter.write_bytes(whole)
    prune(run.state, [adapter], "to save space")
    assert "was removed on purpose (to save space)" in sentence(
        typed("export", run.state.root, "--model", run.models[0])
    )
