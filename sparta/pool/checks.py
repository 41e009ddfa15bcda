"""What can be wrong with a pool, told before a weight is loaded or a GPU is asked for; and what is worth knowing of it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from sparta.chat.renderer import Renderer
from sparta.chat.template import Message
from sparta.chat.template_check import Role
from sparta.engines.adapter_check import check_adapter
from sparta.engines.base import ModelRef
from sparta.engines.factory import check_engine
from sparta.engines.tokenizers import check_base, load_renderer, vocabulary_fingerprint
from sparta.engines.vllm.lora_capacity import check_rank
from sparta.errors import SpartaError
from sparta.pool.gpu_memory import adapter_bytes
from sparta.pool.members import base_folder, judge_named, judge_reference, locate
from sparta.pool.quantised import check_unquantised
from sparta.recipes.pool import FETCH, HUB, Model
from sparta.recipes.schema import Judging, Recipe
from sparta.training.adapter_fit import check_fit
from sparta.training.adapter_folder import check_trainable, read_starting_adapter
from sparta.training.new_adapter import check_shape


def check_pool(recipe: Recipe) -> None:
    """Everything about the pool that can be checked without loading a weight. Raises SpartaError naming the model."""
    pool = recipe.pool
    originals = [model for model in pool.models if pool.original(model) is model]
    if recipe.engine.kind == "scripted":
        # It has no bases, and its adapters need only be there.
        for model in originals:
            if model.adapter is not None:
                read_starting_adapter(model.name, Path(locate(model.adapter, pool.folder)))
        return
    for model in originals:
        try:
            _check_member(recipe, model)
        except SpartaError as error:
            raise SpartaError(f"model {model.name}: {error}") from None
    made: dict[str, Model] = {}
    for model in originals:
        if model.adapter is None:
            made.setdefault(base_folder(recipe, model), model)
    for base, model in made.items():
        try:
            check_shape(base, pool.lora, pool.trust_remote_code)
        except SpartaError as error:
            raise SpartaError(f"model {model.name}: {error}") from None
    if made and recipe.engine.kind in ("auto", "vllm"):
        check_rank("pool.lora", pool.lora.rank, recipe.engine.vllm.max_rank)
    known = [
        ModelRef(
            model.name,
            base_folder(recipe, model),
            Path(locate(model.adapter, pool.folder)) if model.adapter else None,
            version="0",
        )
        for model in originals
    ]
    check_engine(recipe.engine, known, recipe.judging, pool.trust_remote_code, recipe.chat.options_now())


def check_prompts(recipe: Recipe, prompts: Iterable[tuple[str, Sequence[Message]]]) -> None:
    """Raises SpartaError, naming base and turn, where the chat template of a base of the pool would not show every turn of a prompt.

    prompts: their ids and turns. Each order of roles is tried once, and that of a judge prompt, on each chat template.
    """
    if recipe.engine.kind == "scripted":
        return
    examples: dict[tuple[Role, ...], str] = {("user",): ""}
    for prompt_id, messages in prompts:
        examples.setdefault(tuple(message.role for message in messages), prompt_id)
    for renderer in _renderers(recipe):
        _check_thinking(recipe, renderer)
        for roles, prompt_id in examples.items():
            try:
                renderer.check_roles(roles)
            except SpartaError as error:
                raise SpartaError(
                    f"{error} (of those prompts {prompt_id} is one)" if prompt_id else str(error)
                ) from None


def _check_thinking(recipe: Recipe, renderer: Renderer) -> None:
    """Raises SpartaError where prompts of this base would not be what the models are asked, or leave a judge that thinks no way to vote."""
    api, judging, base = recipe.engine.kind == "api", recipe.judging, renderer.base
    if api and renderer.is_dated:
        raise SpartaError(
            f"the chat template of base {base} prints today's date, and an endpoint prints its own: name a date in chat.template_kwargs where the "
            "template takes one (date_string, say), serve the base with a template without one that also lies in its folder, or set engine.kind "
            "to hf or vllm"
        )
    if not renderer.combat([Message("user", "?")]).invites_thinking:
        return
    longest = max(recipe.generation.max_new_tokens, judging.max_new_tokens)
    if recipe.chat.thinking_tokens + longest >= renderer.context_length:
        raise SpartaError(
            f"a thought (chat.thinking_tokens, {recipe.chat.thinking_tokens}) and an answer ({longest}) leave no room for a prompt in the context of "
            f"base {base}, {renderer.context_length} tokens: lower one of them, or raise engine.context_length"
        )
    held = "judging.mode expected asks for a label" if judging.mode == "expected" else ""
    if judging.mode == "text" and judging.constrained and recipe.engine.api.dialect == "vllm":
        held = "judging.constrained holds a judge to its form"
    if api and held:
        raise SpartaError(
            f"{held} at once, and models of base {base} think first, from which an endpoint does not go on: set chat.template_kwargs to what turns "
            "thinking off ({enable_thinking: false}, say), or judge with judging.mode text and judging.constrained false"
        )


def _renderers(recipe: Recipe) -> Iterator[Renderer]:
    """Of the bases of the pool, one for each chat template."""
    bases = dict.fromkeys(base_folder(recipe, model) for model in recipe.pool.models)
    loaded = [
        load_renderer(
            base, recipe.engine.context_length, recipe.pool.trust_remote_code, recipe.chat.options_now()
        )
        for base in bases
    ]
    yield from {str(renderer.tokenizer.chat_template): renderer for renderer in loaded}.values()


def _check_member(recipe: Recipe, model: Model) -> None:
    folder, base = recipe.pool.folder, base_folder(recipe, model)
    require_fetched(recipe.pool.base_of(model), folder)
    check_base(base)
    check_unquantised(Path(base))
    if model.adapter is not None:
        adapter = Path(locate(model.adapter, folder))
        require_fetched(model.adapter, folder)
        check_adapter(adapter, Path(base))
        check_trainable(model.name, adapter)
        check_fit(adapter, base, recipe.pool.trust_remote_code)


def check_judge(recipe: Recipe) -> None:
    """Everything about the judge of evaluations that can be checked without loading a weight or asking an endpoint. Raises SpartaError."""
    judge, model = judge_named(recipe), judge_reference(recipe)
    try:
        if judge.engine.kind not in ("scripted", "api"):
            require_fetched(judge.base, recipe.pool.folder)
            check_base(model.base)
            check_unquantised(Path(model.base))
            if model.adapter is not None:
                require_fetched(judge.adapter or "", recipe.pool.folder)
                check_adapter(model.adapter, Path(model.base))
                check_fit(model.adapter, model.base, recipe.pool.trust_remote_code)
        trusting, chat = recipe.pool.trust_remote_code, judge.chat.options_now()
        check_engine(judge.engine, [model], Judging(), trusting, chat)
        if judge.engine.kind not in ("scripted", "api"):
            load_renderer(model.base, judge.engine.context_length, trusting, chat).check_roles(["user"])
    except SpartaError as error:
        raise SpartaError(f"evaluation.judge: {error}") from None


def require_fetched(reference: str, folder: str | None) -> None:
    """Raises SpartaError for a model of the hub that is not here; a fetched folder appears whole."""
    if reference.startswith(HUB) and not Path(locate(reference, folder)).is_dir():
        raise SpartaError(f"{reference} has not been fetched to {locate(reference, folder)}: {FETCH}")


def notes(recipe: Recipe, founded: Mapping[str, Path] | None = None) -> list[str]:
    """What a person should know of a pool that is in order, a sentence each: how its bases differ, and what it takes on disk.

    founded: the adapters of the members in the state, by name, where there are any; those that it began with may be gone. The scripted engine has
    no models, and nothing is said of them.
    """
    if recipe.engine.kind == "scripted":
        return []
    return [*_differences(recipe), _on_disk(recipe, founded)]


def _differences(recipe: Recipe) -> Iterator[str]:
    named = {base_folder(recipe, model): recipe.pool.base_of(model) for model in recipe.pool.models}
    if len(named) < 2:
        return
    tokenizers = [
        load_renderer(base, recipe.engine.context_length, recipe.pool.trust_remote_code).tokenizer
        for base in named
    ]
    bases = " and ".join(f"base {name}" for name in named.values())
    if len(set(map(vocabulary_fingerprint, tokenizers))) > 1:
        yield f"{bases} have different tokenizers: responses are encoded anew for training"
    if len({tokenizer.chat_template for tokenizer in tokenizers}) > 1:
        yield f"{bases} have different chat templates: each model is asked in its own"


def _on_disk(recipe: Recipe, founded: Mapping[str, Path] | None) -> str:
    """What bases and adapters take; an adapter that is not made yet counts with what its shape gives."""
    pool = recipe.pool
    bases = {base_folder(recipe, model) for model in pool.models}
    total = sum(path.stat().st_size for base in bases for path in Path(base).glob("*.safetensors"))
    return (
        f"on disk {len(bases)} base{'s' * (len(bases) != 1)} of {_in_words(total)}, {len(pool.models)} adapters of "
        f"{_in_words(adapter_bytes(recipe, founded))}, and so much again for every iteration"
    )


def _in_words(count: float) -> str:
    """So many bytes as a person says it: 15.2 GB."""
    power = min(max(len(str(int(count))) - 1, 0) // 3, 3)
    return f"{count / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB')[power]}"
