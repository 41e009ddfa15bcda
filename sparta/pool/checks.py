"""Checks of a pool before any weights are loaded or any GPU is requested, and notes about a valid pool."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from sparta.chat.renderer import Renderer
from sparta.chat.template import Message
from sparta.chat.template_check import Role
from sparta.engines.adapter_check import check_adapter
from sparta.engines.base import ModelRef
from sparta.engines.factory import check_engine
from sparta.engines.quantised import check_loadable, check_quantised_once, check_trainable_base
from sparta.engines.small_base import settled
from sparta.engines.tokenizers import check_base, load_renderer, vocabulary_fingerprint
from sparta.engines.vllm.lora_capacity import check_rank
from sparta.errors import NotHere, SpartaError
from sparta.pool.gpu_memory import adapter_bytes
from sparta.pool.knob_checks import check_on_cpu
from sparta.pool.members import base_folder, judge_named, judge_reference, locate
from sparta.recipes.pool import FETCH, HUB, Model
from sparta.recipes.schema import JudgeModel, Judging, Recipe
from sparta.training.adapter_fit import check_fit
from sparta.training.adapter_folder import check_trainable, read_starting_adapter
from sparta.training.new_adapter import check_shape


def check_pool(recipe: Recipe) -> None:
    """Check all of the pool that can be checked without loading weights. Raises SpartaError naming the model."""
    pool = recipe.pool
    originals = [model for model in pool.models if pool.original(model) is model]
    if recipe.engine.kind == "scripted":
        # The scripted engine loads no bases, and its adapters only have to exist.
        for model in originals:
            if model.adapter is not None:
                read_starting_adapter(model.name, Path(locate(model.adapter, pool.folder)))
        return
    for model in originals:
        try:
            _check_member(recipe, model)
        except SpartaError as error:
            raise type(error)(f"model {model.name}: {error}") from None
    to_create: dict[str, Model] = {}
    for model in originals:
        if model.adapter is None:
            to_create.setdefault(base_folder(recipe, model), model)
    for base, model in to_create.items():
        try:
            check_shape(base, pool.lora, pool.trust_remote_code)
        except SpartaError as error:
            raise type(error)(f"model {model.name}: {error}") from None
    if to_create and recipe.engine.kind in ("auto", "vllm"):
        check_rank("pool.lora", pool.lora.rank, recipe.engine.vllm.max_rank)
    engine = settled(recipe.engine, {base_folder(recipe, model) for model in originals})
    if engine.device == "cpu":
        named = recipe.engine.device == "cpu"
        check_on_cpu(recipe, "engine.device is cpu" if named else "bases below 64 MB are trained on a CPU")
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
    """Raises SpartaError, naming base and turn, if the chat template of one of the pool's bases would not show every turn of a prompt.

    prompts: their ids and turns. Each chat template is tried once with each sequence of roles, and with that of a judge prompt.
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
                    f"{error} (for example prompt {prompt_id})" if prompt_id else str(error)
                ) from None


def _check_thinking(recipe: Recipe, renderer: Renderer) -> None:
    """Raises SpartaError if this base's chat template and thinking do not work with the endpoint, the token limits or the judging mode."""
    api, judging, base = recipe.engine.kind == "api", recipe.judging, renderer.base
    if api and renderer.is_dated:
        raise SpartaError(
            f"the chat template of base {base} prints today's date, and an endpoint would print its own: set a date in chat.template_kwargs if the "
            "template takes one (such as date_string), use a template without a date both at the endpoint and in the base's folder, or set "
            "engine.kind to hf or vllm"
        )
    if not renderer.combat([Message("user", "?")]).invites_thinking:
        return
    longest = max(recipe.generation.max_new_tokens, judging.max_new_tokens)
    if recipe.chat.thinking_tokens + longest >= renderer.context_length:
        raise SpartaError(
            f"thinking (chat.thinking_tokens, {recipe.chat.thinking_tokens}) and an answer ({longest}) leave no room for a prompt in the context of "
            f"base {base}, {renderer.context_length} tokens: lower one of them, or raise engine.context_length"
        )
    conflict = "judging.mode expected requires a label" if judging.mode == "expected" else ""
    if judging.mode == "text" and judging.constrained and recipe.engine.api.dialect == "vllm":
        conflict = "judging.constrained requires the judge's output format"
    if api and conflict:
        raise SpartaError(
            f"{conflict} from the first token on, but models on base {base} think first, and an endpoint cannot continue after their thinking: turn "
            "thinking off in chat.template_kwargs (for example {enable_thinking: false}), or set judging.mode to text and judging.constrained to "
            "false"
        )


def _renderers(recipe: Recipe) -> Iterator[Renderer]:
    """One renderer for each distinct chat template of the pool's bases."""
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
    check_trainable_base(Path(base))
    if model.adapter is not None:
        adapter = Path(locate(model.adapter, folder))
        require_fetched(model.adapter, folder)
        check_adapter(adapter, Path(base))
        check_trainable(model.name, adapter)
        check_fit(adapter, base, recipe.pool.trust_remote_code)


def check_judge(recipe: Recipe) -> None:
    """Check all of the evaluation judge that can be checked without loading weights or calling an endpoint. Raises SpartaError."""
    judge, model = judge_named(recipe), judge_reference(recipe)
    try:
        if judge.engine.kind == "api" and judge.engine.quantize is not None:
            raise SpartaError("engine.quantize changes no model of an endpoint: leave it out")
        if judge.engine.kind not in ("scripted", "api"):
            require_fetched(judge.base, recipe.pool.folder)
            check_base(model.base)
            _check_quantised_judge(judge, model.base)
            if model.adapter is not None:
                require_fetched(judge.adapter or "", recipe.pool.folder)
                check_adapter(model.adapter, Path(model.base))
                check_fit(model.adapter, model.base, recipe.pool.trust_remote_code)
        trusting, chat = recipe.pool.trust_remote_code, judge.chat.options_now()
        check_engine(judge.engine, [model], Judging(), trusting, chat)
        if judge.engine.kind not in ("scripted", "api"):
            load_renderer(model.base, judge.engine.context_length, trusting, chat).check_roles(["user"])
    except SpartaError as error:
        raise type(error)(f"evaluation.judge: {error}") from None


def _check_quantised_judge(judge: JudgeModel, base: str) -> None:
    """Raises SpartaError if the judge's base is quantised, and its engine, as far as it is known without a GPU, cannot read it or would do so again."""
    check_quantised_once(Path(base), judge.engine.quantize)
    engine = settled(judge.engine, [base])
    if engine.kind == "hf" or (engine.kind == "auto" and engine.device == "cpu"):
        check_loadable(Path(base))
        if engine.device == "cpu" and engine.attention == "flash_attention_2":
            raise SpartaError("engine.attention flash_attention_2 has no kernel for CPUs: set it to auto")


def require_fetched(reference: str, folder: str | None) -> None:
    """Raises NotHere for a hub model that was not downloaded. The folder of a download appears only when it is complete."""
    if reference.startswith(HUB) and not Path(locate(reference, folder)).is_dir():
        raise NotHere(f"{reference} has not been fetched to {locate(reference, folder)}: {FETCH}")


def notes(recipe: Recipe, adapters: Mapping[str, Path] | None = None) -> list[str]:
    """Notes about a valid pool, one sentence each: how its bases differ, and its size on disk. None for the scripted engine.

    adapters: the members' adapters in the state, by name, if there are any; the original ones may be gone.
    """
    if recipe.engine.kind == "scripted":
        return []
    return [*_differences(recipe), _on_disk(recipe, adapters)]


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
        yield f"{bases} have different tokenizers: responses are re-tokenized for training"
    if len({tokenizer.chat_template for tokenizer in tokenizers}) > 1:
        yield f"{bases} have different chat templates: each model is prompted with its own"


def _on_disk(recipe: Recipe, adapters: Mapping[str, Path] | None) -> str:
    """The size of bases and adapters; that of an adapter that does not exist yet follows from its shapes."""
    pool = recipe.pool
    bases = {base_folder(recipe, model) for model in pool.models}
    total = sum(path.stat().st_size for base in bases for path in Path(base).glob("*.safetensors"))
    return (
        f"on disk: {len(bases)} base{'s' * (len(bases) != 1)}, {_in_words(total)}; {len(pool.models)} adapters, "
        f"{_in_words(adapter_bytes(recipe, adapters))}, plus the same for every iteration"
    )


def _in_words(count: float) -> str:
    """Human-readable bytes, such as 15.2 GB."""
    power = min(max(len(str(int(count))) - 1, 0) // 3, 3)
    return f"{count / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB')[power]}"
