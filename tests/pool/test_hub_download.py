"""Downloads from a real hub server on loopback: which files, atomically, and the errors."""

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import hub_server as loopback
from support.hub_fetches import names, refused, run, source, start
from support.hub_server import Hub
from support.scripted_run import wait_until

from sparta.errors import SpartaError
from sparta.names import MODELS
from sparta.recipes.data import Data
from sparta.recipes.pool import hub_folder


@pytest.fixture
def hub() -> Iterator[Hub]:
    with loopback.serving() as served:
        yield served


@pytest.fixture
def published(
    tiny_base: Path, tiny_adapters: dict[str, Path], tmp_path: Path, hub: Hub
) -> dict[str, list[str]]:
    """A base with much beside it, and an adapter; their commits."""
    base = tmp_path / "published" / "base"
    base.mkdir(parents=True)
    for path in tiny_base.iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    for name in (
        "pytorch_model.bin",
        "modeling_own.py",
        "consolidated.00.safetensors",
        "README.md",
        "source.json",
        "onnx/model.json",
    ):
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text("not wanted")
    (base / "chat_template.jinja").write_text("{{ messages }}")
    return {"org/base": hub.add("org/base", base), "org/ada": hub.add("org/ada", tiny_adapters["ada"])}


@pytest.mark.parametrize(
    ("reference", "folder", "expected"),
    [
        ("hub:org/base", None, MODELS / "org" / "base"),
        ("hub:org/base@main", "/models", Path("/models/org/base@main")),
        ("hub:org/base@refs/pr/1", "/models", Path("/models/org/base@refs@pr@1")),
    ],
)
def test_a_reference_has_one_folder(reference: str, folder: str | None, expected: Path) -> None:
    assert hub_folder(reference, folder) == expected


@pytest.mark.parametrize(
    "reference", ["hub:base", "hub:../../etc", "hub:org/..", "hub:org/base@", "org/base"]
)
def test_an_invalid_repository_name_has_no_folder(reference: str) -> None:
    with pytest.raises(ValueError, match=reference):
        hub_folder(reference, "/models")


def test_a_pool_is_fetched_once_each_and_only_what_is_needed_of_it(
    hub: Hub, published: dict[str, list[str]], tiny_base: Path, tmp_path: Path
) -> None:
    said = run(hub, tmp_path / "models")
    base, adapter = tmp_path / "models" / "org" / "base", tmp_path / "models" / "org" / "ada"
    assert f"org/base: fetched to {base}" in said.replace("\n", " ")
    wanted = {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
    assert names(base) == {*wanted, "source.json"}
    assert (base / "model.safetensors").read_bytes() == (tiny_base / "model.safetensors").read_bytes()
    assert names(adapter) == {"adapter_config.json", "adapter_model.safetensors", "source.json"}
    told = source(base)
    assert (told["repository"], told["revision"], told["commit"]) == (
        "org/base",
        None,
        published["org/base"][0],
    )
    assert told["files"] == {name: (base / name).stat().st_size for name in wanted}
    assert [path.name for path in base.parent.iterdir() if path.name.startswith(".")] == []
    assert len(hub.downloaded("adapter_model.safetensors")) == 1

    asked = len(hub.asked)
    assert "is there already" in run(hub, tmp_path / "models")
    assert len(hub.asked) == asked


def test_a_fetched_pool_is_one_that_models_are_loaded_from(
    hub: Hub, published: dict[str, list[str]], tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run(hub, tmp_path / "models")
    base = tmp_path / "models" / "org" / "base"
    assert AutoTokenizer.from_pretrained(base).encode("abc")
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "models" / "org" / "ada")


def test_code_comes_along_where_it_is_trusted_and_pickles_never(
    hub: Hub, published: dict[str, list[str]], tmp_path: Path
) -> None:
    for trusted in (False, True):
        run(hub, tmp_path / "models", trust_remote_code=trusted)
        found = names(tmp_path / "models" / "org" / "base")
        assert ("modeling_own.py" in found) == trusted and "pytorch_model.bin" not in found


def test_the_judge_of_an_evaluation_is_fetched_too(
    hub: Hub, published: dict[str, list[str]], tmp_path: Path
) -> None:
    run(hub, tmp_path / "models", base="none", adapter="none", judge={"base": "hub:org/base@main"})
    assert {path.name for path in (tmp_path / "models" / "org").iterdir()} == {"base@main"}


def test_a_data_set_is_fetched_with_its_rows_alone_and_read_by_split_and_configuration(
    hub: Hub, tmp_path: Path
) -> None:
    from sparta.tasks.user_data.items import items_by_place
    from sparta.tasks.user_data.task import UserTask

    published = tmp_path / "published"
    page = "---\nconfigs:\n"
    for config in ("main", "other"):
        page += f"- config_name: {config}\n  data_files:\n"
        for split in ("train", "test"):
            file = published / config / f"{split}.jsonl"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"question": f"{config} {split}?", "answer": "1"}) + "\n")
            page += f"  - split: {split}\n    path: {config}/{split}.jsonl\n"
    (published / "README.md").write_text(page + "---\n")
    (published / "set.py").write_text("raise SystemExit('code of a data set ran')")
    commit = hub.add("datasets/org/set", published)[-1]
    data = {
        "train": "hub:org/set",
        "validation": "hub:org/set",
        "split": {"validation": "test"},
        "config": "main",
        "folder": str(tmp_path / "data"),
    }
    said = run(hub, tmp_path / "models", base="none", adapter="none", data=data)
    folder = tmp_path / "data" / "hub" / "org" / "set"
    assert f"org/set: fetched to {folder}" in said.replace("\n", " ")
    assert "set.py" not in names(folder)
    assert json.loads((folder / ".source.json").read_text())["commit"] == commit
    asked = len(hub.asked)
    assert "is there already" in run(hub, tmp_path / "models", base="none", adapter="none", data=data)
    assert len(hub.asked) == asked
    task = UserTask(Data.model_validate(data))
    read = {split: [*items_by_place(task.read(split)).values()] for split in ("train", "validation")}
    assert {split: item.messages[0].content for split, [item] in read.items()} == {
        "train": "main train?",
        "validation": "main test?",
    }
    with pytest.raises(SpartaError, match=r"set data.config to one of them"):
        items_by_place(UserTask(Data.model_validate({**data, "config": None})).read("train"))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_a_fetched_data_set_without_a_page_is_its_rows_and_nothing_of_ours(
    name: str, hub: Hub, tmp_path: Path
) -> None:
    from sparta.tasks.user_data.items import items_by_place
    from sparta.tasks.user_data.task import UserTask

    (tmp_path / "published").mkdir()
    rows = {"rows.jsonl": '{"question": "a"}\n{"question": "b"}\n', "rows.csv": "question\na\nb\n"}
    (tmp_path / "published" / name).write_text(rows[name])
    hub.add("datasets/org/set", tmp_path / "published")
    data = {"train": "hub:org/set", "folder": str(tmp_path / "data")}
    run(hub, tmp_path / "models", base="none", adapter="none", data=data)
    found = items_by_place(UserTask(Data.model_validate(data)).read("train"))
    assert [item.messages[0].content for item in found.values()] == ["a", "b"]


def test_a_data_set_of_another_kind_of_files_or_of_an_unknown_name_is_refused(
    hub: Hub, tmp_path: Path
) -> None:
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "rows.pkl").write_text("no")
    hub.add("datasets/org/pickled", tmp_path / "published")
    for name, why in (
        ("pickled", "has no files of rows"),
        (
            "nowhere",
            "is not on the hub, or is private: check the name at huggingface.co/datasets/org/nowhere",
        ),
    ):
        data = {"train": f"hub:org/{name}", "folder": str(tmp_path / "data")}
        assert why in refused(hub, tmp_path / "models", base="none", adapter="none", data=data)


def test_a_model_of_sentence_embeddings_is_fetched_with_its_further_modules_and_without_pickles(
    hub: Hub, published: dict[str, list[str]], tmp_path: Path
) -> None:
    source = tmp_path / "sentences"
    wanted = {
        "config.json",
        "model.safetensors",
        "modules.json",
        "1_Pooling/config.json",
        "2_Dense/model.safetensors",
    }
    for name in (
        *wanted,
        "pytorch_model.bin",
        "2_Dense/pytorch_model.bin",
        "onnx/config.json",
        "1_Pooling/own.py",
    ):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("{}")
    hub.add("org/sentences", source)
    run(hub, tmp_path / "models", base="none", adapter="none", embeddings="hub:org/sentences")
    assert names(tmp_path / "models" / "org" / "sentences") == {*wanted, "source.json"}


def test_a_pinned_revision_is_what_is_fetched_and_an_update_takes_the_newest_of_the_rest(
    hub: Hub, published: dict[str, list[str]], tiny_base: Path, tiny_adapters: dict[str, Path], tmp_path: Path
) -> None:
    first, second = hub.add("org/ada", tiny_adapters["ada"], tiny_adapters["bea"])
    hub.repositories["org/ada"].revisions["main"] = first
    models = tmp_path / "models"
    pinned = models / "org" / f"ada@{first}"
    run(hub, models)
    run(hub, models, adapter=f"hub:org/ada@{first}")
    hub.repositories["org/ada"].revisions["main"] = second
    run(hub, models)
    assert source(models / "org" / "ada")["commit"] == first
    assert "fetched to" in run(hub, models, update=True)
    assert "and the newest" in run(hub, models, adapter=f"hub:org/ada@{first}", update=True)
    assert source(models / "org" / "ada")["commit"] == second
    assert (source(pinned)["commit"], source(pinned)["revision"]) == (first, first)
    for folder, name in ((models / "org" / "ada", "bea"), (pinned, "ada")):
        weights = (folder / "adapter_model.safetensors").read_bytes()
        assert weights == (tiny_adapters[name] / "adapter_model.safetensors").read_bytes()
    assert [path.name for path in (models / "org").iterdir() if path.name.startswith(".")] == []


def test_a_folder_that_lost_a_file_is_fetched_again(
    hub: Hub, published: dict[str, list[str]], tmp_path: Path
) -> None:
    run(hub, tmp_path / "models")
    (tmp_path / "models" / "org" / "ada" / "adapter_model.safetensors").unlink()
    run(hub, tmp_path / "models")
    assert (tmp_path / "models" / "org" / "ada" / "adapter_model.safetensors").is_file()


def test_a_model_put_there_by_hand_is_left_alone(
    hub: Hub, published: dict[str, list[str]], tiny_adapters: dict[str, Path], tmp_path: Path
) -> None:
    own = tmp_path / "models" / "org" / "ada"
    shutil.copytree(tiny_adapters["cem"], own)
    assert "put by hand" in run(hub, tmp_path / "models")
    assert "was not fetched by this command" in refused(hub, tmp_path / "models", update=True)
    assert names(own) == names(tiny_adapters["cem"])


def test_an_interrupted_download_resumes(hub: Hub, published: dict[str, list[str]], tmp_path: Path) -> None:
    hub.cut.add("model.safetensors")
    run(hub, tmp_path / "models")
    assert len(hub.downloaded("model.safetensors")) == 2
    assert names(tmp_path / "models" / "org" / "base") >= {"model.safetensors", "source.json"}


def test_a_killed_fetch_leaves_no_partial_folder_and_resumes(
    hub: Hub, published: dict[str, list[str]], tmp_path: Path
) -> None:
    owner = tmp_path / "models" / "org"
    hub.stalled.add("model.safetensors")
    process = start(hub, tmp_path / "models")
    small = (
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "generation_config.json",
    )
    wait_until(
        lambda: {path.stem for path in owner.rglob("*.metadata")} == set(small) and hub.reached.is_set()
    )
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (owner / "base").exists()
    hub.stalled.clear()
    run(hub, tmp_path / "models")
    assert [len(hub.downloaded(name)) for name in (*small, "model.safetensors")] == [1, 1, 1, 1, 1, 2]
    assert names(owner / "base") == {*small, "model.safetensors", "source.json"}
    assert [path.name for path in owner.iterdir() if path.name.startswith(".")] == []


def test_what_is_not_on_the_hub_is_named(hub: Hub, published: dict[str, list[str]], tmp_path: Path) -> None:
    said = refused(hub, tmp_path / "models", adapter="hub:org/adda")
    assert said.startswith("hub:org/adda is not on the hub, or is private: check the name at")
    # The base, which comes first, stays.
    assert (tmp_path / "models" / "org" / "base" / "source.json").is_file()


@pytest.mark.parametrize("environment", [{}, {"HF_TOKEN": "hf_x"}])
def test_a_gated_model_says_how_to_be_let_in(
    environment: dict[str, str], hub: Hub, published: dict[str, list[str]], tmp_path: Path
) -> None:
    hub.repositories["org/base"].gated = True
    said = refused(hub, tmp_path / "models", environment=environment)
    assert said.startswith("hub:org/base is gated: accept its terms at huggingface.co/org/base, set HF_TOKEN")
    assert not (tmp_path / "models" / "org" / "base").exists()


def test_an_invalid_token_is_reported(hub: Hub, published: dict[str, list[str]], tmp_path: Path) -> None:
    hub.tokens = {"hf_known"}
    said = refused(hub, tmp_path / "models", environment={"HF_TOKEN": "hf_x"})
    assert said == "the hub denies access to hub:org/base (401): set HF_TOKEN to a token that may read it"
    run(hub, tmp_path / "models", environment={"HF_TOKEN": "hf_known"})


def test_a_revision_that_is_not_there_is_named(
    hub: Hub, published: dict[str, list[str]], tmp_path: Path
) -> None:
    said = refused(hub, tmp_path / "models", base="hub:org/base@v9")
    assert said.startswith("hub:org/base@v9: the repository has no revision v9: name a branch, tag or commit")


def test_a_missing_network_is_reported_with_what_to_do(
    hub: Hub, published: dict[str, list[str]], tmp_path: Path
) -> None:
    said = refused(hub, tmp_path / "models", environment={"HF_HUB_OFFLINE": "1"})
    assert "HF_HUB_OFFLINE forbids fetching it" in said
    said = refused(hub, tmp_path / "models", environment={"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert (
        said.startswith("hub:org/base could not be fetched (")
        and "try again from a machine that can reach the hub" in said
    )


def test_a_disk_that_is_too_small_is_reported_before_anything_is_fetched(
    hub: Hub, published: dict[str, list[str]], tmp_path: Path
) -> None:
    hub.claims["model.safetensors"] = 10**18
    said = refused(hub, tmp_path / "models")
    assert (
        said.startswith("org/base needs 1,000,000,000.0 GB more, but the disk of")
        and "free: free space" in said
    )
    assert hub.downloaded("config.json") == []


def test_a_repository_of_pickles_alone_is_refused(
    hub: Hub, published: dict[str, list[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "published" / "base"
    (folder / "model.safetensors").unlink()
    (folder / "consolidated.00.safetensors").unlink()
    assert (
        refused(hub, tmp_path / "models")
        == "hub:org/base has no safetensors (its weights are pytorch_model.bin): name a repository or a revision that has them, "
        "or convert the weights and name the folder"
    )


def test_a_repository_that_is_no_model_is_refused(
    hub: Hub, published: dict[str, list[str]], tmp_path: Path
) -> None:
    (tmp_path / "published" / "base" / "config.json").unlink()
    assert "hub:org/base has neither config.json nor adapter_config.json" in refused(hub, tmp_path / "models")


def test_a_folder_that_may_not_be_written_is_named(
    hub: Hub, published: dict[str, list[str]], tmp_path: Path
) -> None:
    (tmp_path / "models").write_text("a file")
    environment = {"HF_HOME": str(tmp_path / "cache")}
    assert str(tmp_path / "models") in refused(hub, tmp_path / "models", environment=environment)
