"""A pool of two experts five times each, for real: one adapter an expert until they learn, ten afterwards."""

import json
from pathlib import Path

from support.scripted_run import typed

from sparta import toy
from sparta.phases.generate import Generate
from sparta.store.layout import StateDir
from sparta.store.manifest import verify
from sparta.store.run import Run
from sparta.store.shards import read_shards

RANKING = list(toy.ADAPTERS)


def test_copies_share_their_weights_until_training_parts_them(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    settings = (
        "pool.derived.repeat=2",
        f"pool.derived.ranking=[{', '.join(RANKING)}]",
        "combats=24",
        "dpo.batch_size=4",
        "evaluation.validation=10",
    )
    command = ("launch", "--recipe", "toy", "--state", state.root, "--iters", 1, "--cluster", "inline")
    done = typed(*command, *(part for setting in settings for part in ("--set", setting)))
    assert done.returncode == 0, done.stderr
    assert "Derived pool: 2 of 10 models, 5 times each" in done.stdout
    run = Run.open(state)
    verify(state, run.info.genesis)
    originals = {model.name for model in run.recipe.pool.models if model.copy_of is None}
    assert len(run.models) == 10 and len(originals) == 2 and RANKING[0] in originals

    before, after = run.pool(0), run.pool(1)
    assert {folder.name for folder in run.iteration(0).adapters.iterdir()} == originals
    assert {member.adapter for member in before.values()} == {f"iter_00/adapters/{n}" for n in originals}
    assert {folder.name for folder in run.iteration(1).adapters.iterdir()} == set(run.models)
    assert {name: member.adapter for name, member in after.items()} == {
        name: f"iter_01/adapters/{name}" for name in run.models
    }
    assert len({member.sha256 for member in before.values()}) == 2
    assert len({member.sha256 for member in after.values()}) == 10, (
        "copies are trained in orders of their own"
    )

    responses = read_shards(run.iteration(1).responses, Generate.rows)
    assert {key.rpartition("/")[2] for key in responses} <= set(run.models)
    copies = {model.name: run.recipe.pool.original(model).name for model in run.recipe.pool.models}
    among_copies = [combat for combat in run.plan(1) if len({copies[name] for name in combat.models}) == 1]
    texts = [
        {responses[f"{combat.combat_id}/{name}"].text for name in combat.models} for combat in among_copies
    ]
    assert any(len(pair) == 2 for pair in texts), "copies answer each with a seed of its own"

    scored = typed("evaluate", state.root, "--split", "validation")
    assert scored.returncode == 0, scored.stderr
    validation = json.loads((state.evals / "summary.json").read_text())["tasks"]["toy"]["validation"]
    first = {name: validation[f"iter_00-{name}"] for name in run.models}
    assert all(first[name] == first[original] for name, original in copies.items())
    assert len(validation) == 20
