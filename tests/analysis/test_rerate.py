"""Re-rating: the run's own rules give the run exactly, other rules what a run with them would have given from the same votes."""

import json
from pathlib import Path

import pytest
from support.openings import fork
from support.scripted_run import advance, begin, committed, rehearsal

from analysis.frames import Frames, Source
from analysis.rerate import JUDGE_AWARE, SET, compared, main
from analysis.rerating import differences, gold_of, hits, judge_aware, other_rules, rerated, share_right
from sparta.errors import SpartaError
from sparta.phases.merge import Merge, read_pairs
from sparta.phases.plan import Plan
from sparta.recipes.load import adjust
from sparta.store import files, standings
from sparta.store.layout import StateDir
from sparta.store.records import Response, Result, Vote
from sparta.store.run import Run
from sparta.store.shards import ShardWriter
from sparta.studies.manifest import StudyManifest
from sparta.tasks.registry import task_named

RULES = {
    "paper": {},
    "authors": {"reputation": {"preset": "authors"}},
    "frozen": {"reputation": {"frozen": True}},
    "margin": {"preferences": {"min_margin": 0.4}, "reweighting": {"gamma": 1.0, "first_iteration": 1}},
}


def played(folder: Path, iterations: int = 3, **changes: object) -> Run:
    run = begin(folder, models=5, combats=20, **changes)
    for t in range(1, iterations + 1):
        advance(run, t)
    return run


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three iterations under the paper's rules; tests only read it."""
    return played(tmp_path_factory.mktemp("usual"))


@pytest.mark.parametrize("rules", RULES)
def test_the_runs_own_rules_give_its_own_standings_and_pairs(rules: str, tmp_path: Path) -> None:
    run = played(tmp_path, **RULES[rules])
    for made in rerated(run, run.recipe):
        assert made.standings == standings.at_end(run, made.t)
        results = list(files.read_rows(run.iteration(made.t).combats, Result))
        assert [(row.combat_id, row.winner, row.reason) for row in results] == [
            (combat, found.winner, found.reason) for combat, found in made.labels.items()
        ]
        pairs = {pair.combat_id: pair.models[0] for pair in read_pairs(run, made.t)}
        assert pairs == {combat: found.winner for combat, found in made.labels.items() if found.winner}
    assert compared(run, (), False).differences("the run's own rules") == []


def test_other_rules_give_what_a_run_with_them_gives_from_the_same_votes(tmp_path: Path, usual: Run) -> None:
    settings = ["reputation.kappa=0.5", "preferences.min_margin=0.3"]
    [other, *_] = rerated(usual, other_rules(usual.recipe, settings))
    run = begin(tmp_path, models=5, combats=20, reputation={"kappa": 0.5}, preferences={"min_margin": 0.3})
    advance(run, 1, upto="merge")
    # Both begin from equal reputations, so that they plan, ask and vote alike in the first iteration.
    assert other.standings == standings.at_end(run, 1)
    results = {row.combat_id: row.winner for row in files.read_rows(run.iteration(1).combats, Result)}
    assert {combat: found.winner for combat, found in other.labels.items()} == results


def test_a_preset_sets_all_rules_and_other_settings_come_after_it(usual: Run) -> None:
    rules = other_rules(usual.recipe, ["reputation.kappa=2", "reputation.preset=authors"])
    assert (rules.reputation.initial, rules.reputation.labels, rules.reputation.kappa.start) == (
        100,
        "final",
        2,
    )
    assert (rules.reweighting.first_iteration, rules.match.first) == (3, "uniform")
    first = rerated(usual, rules)[0]
    assert all(10 <= standing.reputation < 200 for standing in first.standings.values())
    assert other_rules(rules, ["reputation.preset=paper"]).reputation == usual.recipe.reputation


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("match.k=2", "which combats, responses or votes"),
        ("seed=3", "which combats, responses or votes"),
        ("judging.mode=expected", "which combats, responses or votes"),
        ("judging.equal=judge", "never asked for"),
        ("reputation.kapa=2", "kapa"),
        ("reputation.kappa=-1", "kappa"),
        ("reputation.preset=mine", "preset"),
    ],
)
def test_settings_that_no_replay_can_show_are_refused(setting: str, said: str, usual: Run) -> None:
    with pytest.raises(SpartaError, match=said):
        other_rules(usual.recipe, [setting])


def test_votes_on_equal_answers_can_be_left_out_afterwards(tmp_path: Path) -> None:
    run = judged(tmp_path, judging={"equal": "judge"}, equal=True)
    assert compared(run, (), False).own[0].standings != standings.initial(run)
    made = rerated(run, other_rules(run.recipe, ["judging.equal=skip"]))
    assert {standing.reputation for standing in made[0].standings.values()} == {1000.0}


def test_a_fork_is_replayed_from_where_it_branched(tmp_path: Path, usual: Run) -> None:
    recipe = adjust(usual.recipe, ["reputation.kappa=3"])
    branch = fork(usual.state, 1, StateDir(tmp_path / "branch"), recipe)
    advance(branch, 2)
    assert [made.t for made in compared(branch, (), False).own] == [2]
    with pytest.raises(SpartaError, match="began with the standings of another one"):
        rerated(branch, other_rules(branch.recipe, ["reputation.initial=100"]))


def test_labels_that_differ_are_listed_and_nothing_is_written(usual: Run, tmp_path: Path) -> None:
    before = committed(usual.state.root)
    out = tmp_path / "out.json"
    settings = ["--set", "preferences.min_margin=0.5"]
    assert main([str(usual.state.root), *settings, "--judge-aware", "--json", str(out)]) == 0
    [found] = json.loads(out.read_text())
    made = compared(usual, settings[1:], True)
    expected = made.differences(SET)
    assert found["differences"][SET] == [
        {**each, "models": list(each["models"])} for each in map(as_plain, expected)
    ]
    assert expected and all(each.other.reason == "margin" for each in expected)
    assert len(found["standings"][SET]) == 3 and set(found["strengths"]["strength"]) == set(usual.models)
    assert committed(usual.state.root) == before


def as_plain(difference: object) -> dict[str, object]:
    import msgspec

    return msgspec.to_builtins(difference)


def test_votes_that_do_not_give_the_run_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = played(tmp_path, iterations=1)
    path = next(run.iteration(1).votes.iterdir())
    rows = list(files.read_rows(path, Vote))
    files.write_rows(
        path, [Vote(row.combat_id, row.contestant, row.judge, 11 - (row.score or 5), "", 1) for row in rows]
    )
    assert main([str(run.state.root)]) == 1
    assert "do not give the labels and standings that it has" in capsys.readouterr().err


def test_a_run_without_iterations_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = begin(tmp_path)
    assert main([str(run.state.root)]) == 1
    assert "no committed iteration to replay" in capsys.readouterr().err


def test_a_run_without_combats_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = begin(tmp_path, models=3, method="self_rewarding", baseline={"start": "model1"})
    advance(run, 1)
    assert main([str(run.state.root)]) == 1
    assert "has no combats, because its method is self_rewarding" in capsys.readouterr().err


def judged(folder: Path, equal: bool = False, **changes: object) -> Run:
    """A committed iteration of ten combats on the toy: the first contestant is right in every even one. model4 likes wrong answers, the others right ones.

    equal: both contestants say the same, and the first one gets more.
    """
    recipe = rehearsal(folder, models=5, combats=10, data={"task": "toy"}, **changes)
    from support.openings import begin_or_continue

    run = begin_or_continue(StateDir(folder / "state"), recipe)
    Plan().execute(run, 1)
    answers = {item.item_id: item.answer or "" for item in task_named("toy").items("train", recipe.data)}
    iteration = run.iteration(1)
    with ShardWriter(iteration.responses, 0, 0) as responses, ShardWriter(iteration.votes, 0, 0) as votes:
        for index, combat in enumerate(run.plan(1)):
            for side, model in enumerate(combat.models):
                right = side == 0 and index % 2 == 0
                text = "same" if equal else answers[combat.prompt_id] if right else f"wrong {side}"
                responses.write(Response(combat.combat_id, model, text, (1,), "", 1, 1, "stop"))
                for judge in set(run.models) - set(combat.models):
                    good = (side == 0) if equal else right != (judge == "model4")
                    votes.write(Vote(combat.combat_id, model, judge, 9 if good else 3, "", 1))
    Merge().execute(run, 1)
    advance(run, 1)
    return run


def test_gold_counts_the_only_correct_response_that_won(tmp_path: Path) -> None:
    run = judged(tmp_path)
    found = compared(run, (), True)
    assert found.gold == {combat.combat_id: combat.models[0] for combat in run.plan(1)[::2]}
    for rule in found.made:
        assert set(hits(found.gold, found.made[rule]).values()) == {1.0}
    # The opposite labels are wrong in all of them.
    assert not any(hits(dict.fromkeys(found.gold, "model9"), found.own).values())
    share = share_right([hits(found.gold, found.own, "one"), dict.fromkeys(["two/a", "two/b"], 0.0)])
    assert share.difference == 0.5 and (share.low, share.high) == (0.0, 1.0)


def test_without_gold_nothing_is_said_about_right_labels(
    usual: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gold_of(usual, [1, 2, 3]) is None
    assert main([str(usual.state.root)]) == 0
    assert "nobody knows which labels are right" in capsys.readouterr().out


def test_several_seeds_are_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = judged(tmp_path / "one"), judged(tmp_path / "two", seed=1)
    assert main([str(one.state.root), "--seeds", str(two.state.root), "--judge-aware"]) == 0
    said = capsys.readouterr().out
    assert "10 combats of 2 runs" in said and "100.0%" in said and JUDGE_AWARE in said


def test_of_a_study_the_cells_with_combats_are_rated_by_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seeds of one level, one of another that has only begun, one of a method without combats."""
    for name in ("one", "two", "begun", "single"):
        (tmp_path / name).mkdir()
    runs = {
        "one": judged(tmp_path / "one"),
        "two": judged(tmp_path / "two", seed=1),
        "begun": begin(tmp_path / "begun"),
        "single": begin(tmp_path / "single", models=3, method="self_rewarding", baseline={"start": "model1"}),
    }
    advance(runs["single"], 1)
    sources = [
        Source(name, run, {"seed": 0, "axis_rules": "paper", "axis_seed": name}) for name, run in runs.items()
    ]
    study = StudyManifest(
        1, "s", "", "", None, "all", {"rules": ["paper"], "seed": list(runs)}, ("rules", "paper"), [], []
    )
    monkeypatch.setattr("analysis.rerate.load", lambda path: Frames(sources, study))
    assert main([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert (
        "rules paper: the only correct response won: 10 combats of 2 runs" in said
        and said.count("combats of") == 1
    )


def test_judge_aware_labels_keep_what_needs_no_judge(usual: Run) -> None:
    own, aware = rerated(usual, usual.recipe), [made for made, _ in judge_aware(usual)]
    for was, now in zip(own, aware, strict=True):
        for combat, found in was.labels.items():
            assert (found.reason in ("empty", "equal", "void")) == (
                now.labels[combat].reason in ("empty", "equal", "void")
            )
    for each in differences(usual, own, aware, None):
        assert each.run.winner != each.other.winner and each.right is None


def test_cells_that_are_left_out_are_named_and_without_any_other_it_is_refused(
    usual: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [Source("usual", usual, {"seed": 0}), Source("begun", begin(tmp_path), {"seed": 1})]
    study = StudyManifest(1, "s", "", "", None, "all", {"seed": ["0", "1"]}, ("seed", "0"), [], [])
    monkeypatch.setattr("analysis.rerate.load", lambda path: Frames(sources, study, ["late"]))
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().err == "left out, without a committed iteration with combats: begun, late\n"
    monkeypatch.setattr("analysis.rerate.load", lambda path: Frames(sources[1:], study))
    assert main([str(tmp_path)]) == 1
    assert "no cell of the study s has committed an iteration with combats" in capsys.readouterr().err
