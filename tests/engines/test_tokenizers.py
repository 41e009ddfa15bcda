"""A base is checked, fast, before anything is loaded, and a missing part is named."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sparta.chat.template import Message
from sparta.engines.tokenizers import check_base, load_renderer
from sparta.errors import SpartaError


@pytest.fixture
def base(tiny_base: Path, tmp_path: Path) -> Path:
    check_base(str(tiny_base))
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("config.json", r"is not a folder with a config\.json"),
        ("model.safetensors", r"no model\.safetensors"),
        ("tokenizer.json", "no tokenizer"),
        ("tokenizer_config.json", "no chat template"),
    ],
)
def test_a_base_without_a_part_is_refused(missing: str, words: str, base: Path) -> None:
    (base / "adapter_model.safetensors").write_bytes(b"")
    (base / missing).unlink()
    with pytest.raises(SpartaError, match=words):
        check_base(str(base))


@pytest.mark.parametrize("named", ["own/model", "own/model@v1"])
def test_a_base_named_like_a_hub_model_is_refused_with_how_to_name_and_fetch_it(named: str) -> None:
    with pytest.raises(SpartaError) as caught:
        check_base(named)
    assert str(caught.value).startswith(
        f"base {named} is not a folder with a config.json; correct it in the recipe or put the model there, or name hub:{named} and "
        "fetch it: run python jobs/init_pool.py --recipe R --fetch"
    )


@pytest.mark.parametrize("named", ["nowhere", "/nowhere/model", "./own/model", "~/own/model", "own/a/model"])
def test_a_base_that_is_no_folder_is_refused(named: str) -> None:
    with pytest.raises(SpartaError) as caught:
        check_base(named)
    assert str(caught.value) == (
        f"base {named} is not a folder with a config.json; correct it in the recipe or put the model there"
    )


def test_a_chat_template_may_be_a_file_of_its_own(base: Path) -> None:
    settings = base / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"chat_template": None}))
    with pytest.raises(SpartaError, match="no chat template"):
        check_base(str(base))
    (base / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    check_base(str(base))


def with_templates(base: Path, **templates: str) -> str:
    """`base` with the chat templates of these names."""
    settings = base / "tokenizer_config.json"
    named = [{"name": name, "template": template} for name, template in templates.items()]
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"chat_template": named}))
    return str(base)


def test_of_several_named_templates_the_default_is_used_and_there_must_be_one(base: Path) -> None:
    named = with_templates(base, rag="{{ 'rag' }}", default="{{ messages[0].content }}")
    assert load_renderer(named, 64, False).combat([Message("user", "ab")]).token_ids
    named = with_templates(base, tool_use="{{ 'tools' }}", rag="{{ messages[0].content }}")
    with pytest.raises(SpartaError) as caught:
        load_renderer(named, 64, False)
    assert str(caught.value) == (
        f"base {base} has several chat templates (rag, tool_use) and none of them is called default: copy the one to use to "
        f"{base}/chat_template.jinja"
    )
    (base / "additional_chat_templates").mkdir()
    (base / "additional_chat_templates" / "rag.jinja").write_text("{{ messages[0].content }}")
    settings = base / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"chat_template": None}))
    with pytest.raises(SpartaError, match=r"\(rag\) and none of them is called default"):
        load_renderer(named, 64, False)
    (base / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert load_renderer(named, 64, False).combat([Message("user", "ab")]).token_ids


@pytest.mark.parametrize("template", ["{{ ['a', 'b'] | random }}", "{% set x = lipsum(n=1) %}{{ x }}"])
def test_a_random_chat_template_is_refused(template: str, base: Path) -> None:
    (base / "chat_template.jinja").write_text(template)
    with pytest.raises(SpartaError, match="uses randomness"):
        load_renderer(str(base), 64, False)
    (base / "chat_template.jinja").write_text(
        "a | random lipsum {{ messages[0].random or messages[0].content }}"
    )
    load_renderer(str(base), 64, False).check_roles(["user"])


def test_sharded_weights_must_be_complete(base: Path) -> None:
    (base / "model.safetensors").rename(base / "model-00001-of-00002.safetensors")
    parts = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    with pytest.raises(SpartaError, match=r"lacks model-00002-of-00002\.safetensors"):
        check_base(str(base))
    (base / "model-00002-of-00002.safetensors").touch()
    check_base(str(base))


@pytest.mark.parametrize("content", ["{", "[]"])
def test_an_invalid_tokenizer_configuration_is_named(content: str, base: Path) -> None:
    (base / "tokenizer_config.json").write_text(content)
    with pytest.raises(SpartaError, match=r"tokenizer_config\.json"):
        check_base(str(base))


def test_checking_is_cheap(tiny_base: Path) -> None:
    code = (
        f"import sys; from sparta.engines.tokenizers import check_base; check_base({str(tiny_base)!r});"
        "assert not {'torch', 'peft', 'transformers', 'tokenizers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
