"""The commit: what it covers, what it does not, and the errors for edited files."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.store_samples import vote

from sparta.errors import SpartaError
from sparta.store.files import encode_row, read_json, write_bytes, write_json
from sparta.store.layout import IterationDir, StateDir
from sparta.store.manifest import Manifest, commit, parent_hash, read_manifest, verify
from sparta.store.records import Vote
from sparta.store.shards import ShardReader, ShardWriter

RECIPE = "recipe-hash"


def fill(iteration: IterationDir, shards: int = 1) -> None:
    write_json(iteration.standing, {"m0": iteration.t})
    write_bytes(iteration.adapter("m0") / "adapter_model.safetensors", b"weights")
    write_bytes(iteration.adapter("m0") / "log.jsonl", f"{shards} s".encode())
    write_json(iteration.stats, {"seconds": shards})
    for n in range(6):
        with ShardWriter(iteration.votes, 0, n % shards) as writer:
            writer.write(vote(n, seconds=float(shards)))


def seal(state: StateDir, t: int) -> Manifest:
    iteration = state.iteration(t)
    return commit(iteration, parent_hash(state, t, RECIPE), [iteration.standing], {"votes": Vote})


def make(root: Path, shards: int = 1, iterations: int = 3) -> StateDir:
    state = StateDir(root)
    for t in range(iterations):
        fill(state.iteration(t), shards)
        seal(state, t)
    return state


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    made = make(tmp_path / "state")
    verify(made, RECIPE)
    return made


def test_equal_content_gives_equal_manifests_whatever_the_shards_and_the_measurements(tmp_path: Path) -> None:
    one, many = make(tmp_path / "one", shards=1), make(tmp_path / "many", shards=4)
    for t in range(3):
        assert one.iteration(t).manifest.read_bytes() == many.iteration(t).manifest.read_bytes()


def test_a_manifest_covers_adapters_and_rows_but_no_measurements(state: StateDir) -> None:
    manifest = read_manifest(state.iteration(1))
    assert set(manifest.files) == {"adapters/m0/adapter_model.safetensors", "standing.json"}
    assert manifest.rows["votes"].count == 6
    write_json(state.iteration(1).stats, "edited")
    write_bytes(state.iteration(1).adapter("m0") / "log.jsonl", b"edited")
    verify(state, RECIPE)


def test_rows_that_were_just_read_need_not_be_read_again(state: StateDir) -> None:
    reader = ShardReader(state.iteration(2).votes, Vote)
    list(reader)
    before = state.iteration(2).manifest.read_bytes()
    commit(
        state.iteration(2),
        parent_hash(state, 2, RECIPE),
        [state.iteration(2).standing],
        {"votes": reader.entry},
    )
    assert state.iteration(2).manifest.read_bytes() == before


def test_committing_the_same_content_again_changes_nothing_and_other_content_is_refused(
    state: StateDir,
) -> None:
    before = state.iteration(1).manifest.read_bytes()
    seal(state, 1)
    assert state.iteration(1).manifest.read_bytes() == before
    write_json(state.iteration(1).standing, "other")
    with pytest.raises(SpartaError, match="iter_01 is committed already, with other content"):
        seal(state, 1)


def test_an_iteration_with_a_missing_file_is_not_committed(tmp_path: Path) -> None:
    iteration = StateDir(tmp_path).iteration(0)
    fill(iteration)
    with pytest.raises(SpartaError, match=r"pool\.json is missing"):
        commit(iteration, RECIPE, [iteration.pool], {})
    assert not iteration.manifest.exists()


def test_a_run_that_has_committed_nothing_is_valid(tmp_path: Path) -> None:
    verify(StateDir(tmp_path), RECIPE)


def swap_manifests(state: StateDir) -> None:
    one, two = state.iteration(1).manifest, state.iteration(2).manifest
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def edit_manifest(state: StateDir) -> None:
    path = state.iteration(1).manifest
    path.write_bytes(path.read_bytes() + b"\n")


def edit_row(state: StateDir) -> None:
    path = state.iteration(1).votes / "a0-00000.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"score":7.0', b'"score":8.0', 1))


def add_contradicting_row(state: StateDir) -> None:
    write_bytes(state.iteration(1).votes / "a1-00000.jsonl", encode_row(vote(1, score=1.0)))


def remove_row(state: StateDir) -> None:
    path = state.iteration(1).votes / "a0-00000.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))


def point_outside(state: StateDir) -> None:
    path = state.iteration(2).manifest
    path.write_bytes(path.read_bytes().replace(b'"standing.json"', b'"../iter_01/standing.json"'))


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda s: write_json(s.iteration(1).standing, {"m0": 2}), r"iter_01/standing\.json was changed"),
        (lambda s: s.iteration(1).standing.unlink(), r"iter_01/standing\.json is missing"),
        (
            lambda s: shutil.rmtree(s.iteration(1).adapters),
            r"adapters/m0/adapter_model\.safetensors is missing",
        ),
        (lambda s: write_bytes(s.iteration(1).adapter("m0") / "x.bin", b""), r"adapters/m0/x\.bin was added"),
        (lambda s: s.iteration(1).manifest.unlink(), r"iter_01/MANIFEST\.json is missing"),
        (edit_manifest, r"iter_02/MANIFEST\.json does not follow .*iter_01/MANIFEST\.json"),
        (swap_manifests, r"iter_01/MANIFEST\.json is the manifest of iteration 2, not 1"),
        (
            edit_row,
            r"the rows of .*iter_01/votes were changed .*; most likely in .*a0-00000\.jsonl, modified since",
        ),
        (remove_row, r"votes were changed after the commit \(5 rows, 6 were committed\); most likely in"),
        (
            lambda s: shutil.rmtree(s.iteration(1).votes),
            r"votes were changed after the commit \(0 rows, 6 were",
        ),
        (add_contradicting_row, r"a1-00000\.jsonl, line 1 are different results .*: restore it from a copy"),
        (point_outside, r"names '\.\./iter_01/standing\.json', which is outside of the iteration"),
    ],
)
def test_what_was_edited_is_named_with_the_remedy(
    state: StateDir, edit: Callable[[StateDir], object], sentence: str
) -> None:
    edit(state)
    with pytest.raises(SpartaError, match=f"(?i){sentence}.*--resume .*iter_0[01]"):
        verify(state, RECIPE)


def test_an_iteration_that_the_next_one_was_begun_after_has_lost_its_manifest(state: StateDir) -> None:
    state.iteration(2).manifest.unlink()
    verify(state, RECIPE)
    state.iteration(3).root.mkdir()
    with pytest.raises(SpartaError, match=r"iter_02/MANIFEST\.json is missing: restore .*--resume .*iter_01"):
        verify(state, RECIPE)


def test_an_edit_after_the_iterations_asked_for_does_not_matter(state: StateDir) -> None:
    write_json(state.iteration(2).standing, "edited")
    verify(state, RECIPE, upto=1)
    with pytest.raises(SpartaError, match=r"iter_02/standing\.json"):
        verify(state, RECIPE)


def test_another_recipe_is_noticed_and_iteration_0_has_no_iteration_before_to_resume_from(
    state: StateDir,
) -> None:
    with pytest.raises(
        SpartaError, match=r"iter_00/MANIFEST\.json belongs to another recipe .* start a new run"
    ):
        verify(state, "another recipe")


def test_an_iteration_of_another_run_is_noticed(state: StateDir, tmp_path: Path) -> None:
    other = StateDir(tmp_path / "other")
    fill(other.iteration(0))
    commit(other.iteration(0), RECIPE, [], {})
    fill(other.iteration(1))
    seal(other, 1)
    shutil.rmtree(state.iteration(1).root)
    shutil.copytree(other.iteration(1).root, state.iteration(1).root)
    with pytest.raises(SpartaError, match="iter_01/MANIFEST.json does not follow .*of another run"):
        verify(state, RECIPE)


def test_the_same_row_done_again_after_the_commit_changes_nothing(state: StateDir) -> None:
    with ShardWriter(state.iteration(1).votes, 1, 0) as writer:
        writer.write(vote(1, seconds=99.0))
    verify(state, RECIPE)


def test_a_manifest_of_another_schema_version_is_not_read(state: StateDir) -> None:
    path = state.iteration(0).manifest
    write_json(path, read_json(path, dict[str, object]) | {"schema_version": 2})
    with pytest.raises(SpartaError, match="has schema version 2, this program knows 1"):
        verify(state, RECIPE)


def test_a_changed_file_that_is_shared_by_hard_links_is_said_to_be(state: StateDir, tmp_path: Path) -> None:
    weights = state.iteration(1).adapter("m0") / "adapter_model.safetensors"
    os.link(weights, tmp_path / "another run's")
    verify(state, RECIPE)
    weights.write_bytes(b"changed")
    with pytest.raises(SpartaError, match=r"by hard links: remove it before you restore it"):
        verify(state, RECIPE)
