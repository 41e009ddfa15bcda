"""What models learn from is what they read and wrote, token for token, through a whole iteration of real models."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny_models
from support.openings import begin_or_continue
from support.scripted_run import advance
from transformers import GenerationMixin

from sparta.engines.factory import close_engine, loads_so_far
from sparta.engines.tokenizers import load_renderer
from sparta.phases.merge import read_pairs
from sparta.recipes.schema import Recipe
from sparta.store.layout import StateDir
from sparta.store.records import Pair, Response, Vote
from sparta.store.run import Run
from sparta.store.shards import read_shards
from sparta.toy import BASE, EXPERTS
from sparta.training import dpo
from sparta.training.dpo_batches import DpoBatch
from sparta.training.job import PreferenceExample, TrainingJob

Ids = tuple[int, ...]


def begin(folder: Path, **sections: object) -> Run:
    """A run in folder/state, carried out in this process on one CPU core."""
    engine = {"kind": "hf", "device": "cpu", "threads": 1, "context_length": 256}
    recipe = Recipe.model_validate(
        {"name": "exact", "iterations": 1, "engine": engine, "cluster": {"kind": "inline"}, **sections}
    )
    return begin_or_continue(StateDir(folder / "state"), recipe)


def record_generation(monkeypatch: pytest.MonkeyPatch, end: int) -> list[tuple[Ids, Ids]]:
    """From now on: what each row of a batch had before the model, and what the model put behind it, up to and with `end`."""
    seen: list[tuple[Ids, Ids]] = []
    generate: Callable[..., Any] = GenerationMixin.generate

    def recording(model: Any, **given: Any) -> Any:
        sequences = generate(model, **given)
        ids, mask = given["input_ids"], given["attention_mask"]
        for row, shown, whole in zip(ids, mask, sequences, strict=True):
            made = whole[len(row) :].tolist()
            made = made[: made.index(end) + 1] if end in made else made
            seen.append((tuple(row[shown == 1].tolist()), tuple(made)))
        return sequences

    monkeypatch.setattr(GenerationMixin, "generate", recording)
    return seen


def record_training(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Ids, Ids, Ids]]:
    """From now on: prompt, chosen and rejected of every pair in the batches that are trained on."""
    seen: list[tuple[Ids, Ids, Ids]] = []
    read = DpoBatch.log_probabilities

    def recording(batch: DpoBatch, base: Any) -> Any:
        if torch.is_grad_enabled():
            sides = [_seen_and_scored(batch, side) for side in range(2 * batch.half * len(batch.blocks))]
            for at in range(0, len(sides), 2 * batch.half):
                chosen, rejected = sides[at : at + batch.half], sides[at + batch.half : at + 2 * batch.half]
                for one, other in zip(chosen, rejected, strict=True):
                    assert (one is None) == (other is None), "a pair has two sides"
                    if one and other:
                        assert one[0] == other[0], "of one prompt"
                        seen.append((one[0], one[1], other[1]))
        return read(batch, base)

    monkeypatch.setattr(DpoBatch, "log_probabilities", recording)
    return seen


def _seen_and_scored(batch: DpoBatch, side: int) -> tuple[Ids, Ids] | None:
    """The prompt that the model sees before that side of a pair, and the completion whose tokens are scored; None where there is no pair."""
    places = sorted((batch._side == side).nonzero()[:, 0].tolist(), key=lambda place: int(batch._nth[place]))
    if not places:
        return None
    completion = batch.targets[places].tolist()
    for nth, place in enumerate(places):
        row, column = int(batch.row[place]), int(batch.column[place])
        sees = torch.arange(batch.length) <= column
        if batch.one_prompt:
            sees = batch._layout["attention_mask"][row, 0, column]
        visible = batch.ids[row][sees].tolist()
        prompt = visible[: len(visible) - nth]
        assert visible[len(prompt) :] == completion[:nth], "each token follows the prompt and those before it"
    return tuple(prompt), tuple(completion)


def test_the_toy_pool_learns_from_exactly_the_tokens_that_it_read_and_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = list(EXPERTS)[:4]
    run = begin(
        tmp_path,
        combats=24,
        pool={
            "base": "embedded:base",
            "models": [{"name": name, "adapter": f"embedded:{name}"} for name in names],
        },
        data={"task": "toy"},
        generation={"max_new_tokens": 5, "temperature": 4, "top_p": 1, "top_k": 0},
        judging={"working": True, "max_new_tokens": 16, "max_missing": 1},
        dpo={"learning_rate": 1e-3, "batch_size": 4, "max_length": 128},
    )
    renderer = load_renderer(str(BASE), 256, False)
    end = renderer.tokenizer.eos_token_id
    with monkeypatch.context() as patch:
        written = record_generation(patch, end)
        advance(run, 1, upto="generate")
    assert len(written) == 2 * 24
    assert {made[-1] == end for _, made in written} == {True, False}, "some answers end, some are cut off"
    with monkeypatch.context() as patch:
        learned = record_training(patch)
        advance(run, 1)
    close_engine()
    pairs = read_pairs(run, 1)
    assert pairs
    assert len(learned) == len(names) * len(pairs)
    for prompt, chosen, rejected in learned:
        assert (prompt, chosen) in written
        assert (prompt, rejected) in written
    texts = sorted((renderer.decode(chosen), renderer.decode(rejected)) for _, chosen, rejected in learned)
    assert texts == sorted((pair.chosen, pair.rejected) for pair in pairs for _ in names)


@pytest.fixture
def two_bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Random bases that cut text into different tokens and mark turns differently."""
    bases = {"a": tiny_models.make_base(tmp_path / "a", seed=1)}
    monkeypatch.setattr(tiny_models, "MERGES", [("i", "n"), ("e", "r"), ("q", "u"), ("s", "t"), ("Ġ", "t")])
    monkeypatch.setattr(tiny_models, "CHAT_TEMPLATE", tiny_models.CHAT_TEMPLATE.replace("assistant", "model"))
    return {**bases, "b": tiny_models.make_base(tmp_path / "b", seed=2)}


def record_jobs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Sequence[PreferenceExample]]:
    """From now on: the examples that each model is trained on."""
    examples: dict[str, Sequence[PreferenceExample]] = {}
    train = dpo.train_members

    def recording(jobs: Sequence[TrainingJob], *rest: Any) -> None:
        examples.update({job.model: job.examples for job in jobs})
        train(jobs, *rest)

    monkeypatch.setattr(dpo, "train_members", recording)
    return examples


def test_models_of_two_bases_judge_and_teach_each_other(
    tmp_path: Path, two_bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [
        {
            "name": f"{letter}{number}",
            "base": str(two_bases[letter]),
            "adapter": str(
                tiny_models.make_adapter(tmp_path / f"{letter}{number}", two_bases[letter], seed=number)
            ),
        }
        for number in (1, 2)
        for letter in "ab"
    ]
    questions = tmp_path / "train.jsonl"
    questions.write_text("".join(json.dumps({"prompt": f"the question {n}"}) + "\n" for n in range(20)))
    run = begin(
        tmp_path,
        combats=16,
        pool={"models": models},
        data={"train": str(questions)},
        match={"alpha": 1.0},
        generation={"max_new_tokens": 12},
        judging={"mode": "expected"},
        dpo={"max_length": 256, "batch_size": 4},
    )
    monkeypatch.setattr("sparta.engines.hf.engine.ROUND", 5)
    loads = loads_so_far().bases
    advance(run, 1, upto="judge")
    assert loads_so_far().bases - loads <= 4, "each base once a phase, in however many chunks"
    assert all(vote.score is not None for vote in read_shards(run.iteration(1).votes, Vote).values())
    taught = record_jobs(monkeypatch)
    advance(run, 1)
    assert run.state.committed() == [0, 1]
    pairs = read_pairs(run, 1)
    owner = {"a": two_bases["a"], "b": two_bases["b"]}
    renderers = {letter: load_renderer(str(base), 256, False) for letter, base in owner.items()}
    fingerprints = {row.tokenizer for row in read_shards(run.iteration(1).responses, Response).values()}
    assert len(fingerprints) == 2
    close_engine()

    def expected(learner: str, pair: Pair) -> PreferenceExample:
        renderer = renderers[learner[0]]
        sides = [
            ids if writer[0] == learner[0] else renderer.completion(text, finished)
            for writer, ids, text, finished in zip(
                pair.models,
                (pair.chosen_token_ids, pair.rejected_token_ids),
                (pair.chosen, pair.rejected),
                pair.finished,
                strict=True,
            )
        ]
        return PreferenceExample(renderer.combat(pair.messages).token_ids or (), *sides)

    assert {writer[0] + learner[0] for pair in pairs for writer in pair.models for learner in taught} == {
        "aa",
        "ab",
        "ba",
        "bb",
    }
    for learner, examples in taught.items():
        assert list(examples) == [expected(learner, pair) for pair in pairs]
    assert set(taught) == {"a1", "a2", "b1", "b2"}
