"""From the recipe's pool to models that engines and training can load, and to M^0 in the state; and from its judge of evaluations to one.

Whatever a member is, M^0 is a base and a LoRA adapter on it. What can be wrong with a pool is looked for in `sparta.pool.checks`.
"""

from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path

from sparta import rng, toy
from sparta.engines.base import Engine, ModelRef
from sparta.engines.factory import open_engine
from sparta.engines.small_base import settled
from sparta.errors import SpartaError
from sparta.pool.base_name import naming_base
from sparta.recipes import engine as recipe_engine
from sparta.recipes.pool import EMBEDDED, HUB, Model, hub_folder
from sparta.recipes.schema import JudgeModel, Recipe
from sparta.store import files
from sparta.store.records import Member
from sparta.store.run import Run
from sparta.training.adapter_folder import CONFIG, WEIGHTS
from sparta.training.new_adapter import fresh_adapter
from sparta.training.scripted import scripted_start


def locate(reference: str, folder: str | None) -> str:
    """A folder for `embedded:NAME` (a part of the toy pool that ships with the code) and for `hub:OWNER/NAME[@REVISION]` (where it is fetched
    to, `folder` being the recipe's pool.folder); anything else as it is.
    """
    if reference.startswith(HUB):
        try:
            return str(hub_folder(reference, folder))
        except ValueError as error:
            raise SpartaError(str(error)) from None
    if not reference.startswith(EMBEDDED):
        return reference
    name = reference.removeprefix(EMBEDDED)
    folders = {"base": toy.BASE, **toy.ADAPTERS}
    if name not in folders:
        raise SpartaError(f"there is no embedded model {name}: known are {', '.join(folders)}")
    return str(folders[name])


def base_folder(recipe: Recipe, model: Model) -> str:
    """The folder of the base of `model`."""
    return locate(recipe.pool.base_of(model), recipe.pool.folder)


def install_pool(run: Run) -> list[Member]:
    """Put M^0 into iter_00/adapters and return it: the state needs nothing but the bases from elsewhere.

    Adapters that exist are copied, full models get a new one, those of experts that are trained from data are there, and a copy shares its
    original's.
    """
    pool = run.recipe.pool
    folders = {model.name: _installed(run, model) for model in pool.models if pool.original(model) is model}
    hashes = {name: files.sha256_tree(folder) for name, folder in folders.items()}
    members = []
    for model in pool.models:
        original = pool.original(model).name
        adapter = str(folders[original].relative_to(run.state.root))
        members.append(Member(model.name, pool.base_of(model), adapter, hashes[original]))
    return members


def _installed(run: Run, model: Model) -> Path:
    """The folder of the adapter of `model`, whole."""
    target = run.iteration(0).adapter(model.name)
    if model.sft is None:
        for name, content in _contents(run.recipe, model).items():
            files.write_bytes(target / name, content)
    elif not (target / WEIGHTS).is_file():
        raise SpartaError(f"{target} is missing: model {model.name} has not been trained from its data")
    return target


def _contents(recipe: Recipe, model: Model) -> Mapping[str, bytes]:
    """The files of the adapter of `model` where it exists, of a new one where `model` is a full model; by name."""
    if model.adapter is not None:
        source = Path(locate(model.adapter, recipe.pool.folder))
        contents = {}
        for name in (CONFIG, WEIGHTS):
            with files.os_errors_named(source / name):
                contents[name] = (source / name).read_bytes()
        return (
            contents
            if recipe.engine.kind == "scripted"
            else naming_base(contents, recipe.pool.base_of(model))
        )
    return starting_adapter(recipe, model, rng.seed_of(recipe.seed, 0, "pool", model.name))


def starting_adapter(recipe: Recipe, model: Model, seed: int) -> Mapping[str, bytes]:
    """The files of a new adapter of `model`, by name."""
    if recipe.engine.kind == "scripted":
        return scripted_start(seed)
    made = fresh_adapter(base_folder(recipe, model), recipe.pool.lora, seed, recipe.pool.trust_remote_code)
    return naming_base(made, recipe.pool.base_of(model))


def adapters_of(run: Run) -> dict[str, Path]:
    """The adapters of the last pool that is committed, by name: a run needs none of those that it began with from elsewhere."""
    last = run.state.last_committed()
    members = run.pool(last) if last is not None else {}
    return {name: run.state.inside(member.adapter) for name, member in members.items()}


def references(run: Run, t: int) -> dict[str, ModelRef]:
    """M^t as engines take it, by name."""
    return {
        member.name: ModelRef(
            name=member.name,
            base=locate(member.base, run.recipe.pool.folder),
            adapter=run.state.inside(member.adapter),
            version=member.sha256[:12],
        )
        for member in run.pool(t).values()
    }


def engine_for(run: Run, settings: recipe_engine.EngineSettings, models: Collection[ModelRef]) -> Engine:
    """The process's engine with `settings`, those of a phase, told of `models` of the pool. Raises SpartaError where one of them cannot work."""
    engine = open_engine(
        settled(settings, models), run.recipe.pool.trust_remote_code, run.state.calls, chat=run.chat
    )
    engine.expect(models)
    return engine


def judge_named(recipe: Recipe) -> JudgeModel:
    """The judge of the recipe's evaluation. Raises SpartaError where it names none."""
    if recipe.evaluation.judge is None:
        raise SpartaError("the recipe names no judge for what only a judge can grade: set evaluation.judge")
    return recipe.evaluation.judge


def judge_reference(recipe: Recipe) -> ModelRef:
    """The judge of the recipe's evaluation as its engine takes it."""
    judge, folder = judge_named(recipe), recipe.pool.folder
    adapter = Path(locate(judge.adapter, folder)) if judge.adapter else None
    return ModelRef("judge", locate(judge.base, folder), adapter, _version_of(adapter) if adapter else "")


@cache
def _version_of(adapter: Path) -> str:
    """The version of the judge's adapter, read once by a process: it is asked for whenever grades are looked for."""
    return files.sha256_tree(adapter)[:12]


def judge_engine(run: Run, settings: recipe_engine.EngineSettings, model: ModelRef) -> Engine:
    """The process's engine with `settings`, those of the judge of evaluations, told of it. The pool's is closed for it."""
    engine = open_engine(
        settled(settings, [model]),
        run.recipe.pool.trust_remote_code,
        run.state.judge_calls,
        "evaluation.judge.engine",
        run.judge_chat,
    )
    engine.expect([model])
    return engine
