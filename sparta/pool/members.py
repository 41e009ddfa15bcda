"""Turns the recipe's pool, and its evaluation judge, into models that engines and training can load, and writes M^0 into the state.

In M^0 every member is a base with a LoRA adapter. `sparta.pool.checks` validates the pool.
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
from sparta.store.pruned import require_unpruned
from sparta.store.records import Member
from sparta.store.run import Run
from sparta.training.adapter_folder import CONFIG, WEIGHTS
from sparta.training.new_adapter import fresh_adapter
from sparta.training.scripted import scripted_start


def locate(reference: str, folder: str | None) -> str:
    """The folder of `reference`: of the toy pool in the code for `embedded:NAME`, of the download for `hub:OWNER/NAME[@REVISION]`; any other
    reference is a path already. folder: the recipe's pool.folder.
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
        raise SpartaError(f"there is no embedded model {name}: use one of {', '.join(folders)}")
    return str(folders[name])


def base_folder(recipe: Recipe, model: Model) -> str:
    """The folder of the base of `model`."""
    return locate(recipe.pool.base_of(model), recipe.pool.folder)


def install_pool(run: Run) -> list[Member]:
    """Put M^0 into iter_00/adapters and return it. From then on the state needs only the bases from elsewhere.

    Existing adapters are copied, and full models get a new one. Adapters of experts that are trained from data must be there already. A copy
    shares the adapter of its original.
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
    """The folder of the adapter of `model`, complete."""
    target = run.iteration(0).adapter(model.name)
    if model.sft is None:
        for name, content in _contents(run.recipe, model).items():
            files.write_bytes(target / name, content)
    elif not (target / WEIGHTS).is_file():
        raise SpartaError(f"{target} is missing: model {model.name} has not been trained from its data")
    return target


def _contents(recipe: Recipe, model: Model) -> Mapping[str, bytes]:
    """The files of the adapter of `model`, by name; of a new adapter if `model` is a full model."""
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
    """The files of a new adapter for `model`, by name."""
    if recipe.engine.kind == "scripted":
        return scripted_start(seed)
    made = fresh_adapter(base_folder(recipe, model), recipe.pool.lora, seed, recipe.pool.trust_remote_code)
    return naming_base(made, recipe.pool.base_of(model))


def adapters_of(run: Run) -> dict[str, Path]:
    """The adapters of the last committed pool, by member name; empty before the first commit."""
    last = run.state.last_committed()
    members = run.pool(last) if last is not None else {}
    return {name: run.state.inside(member.adapter) for name, member in members.items()}


def references(run: Run, t: int) -> dict[str, ModelRef]:
    """M^t as engines need it, by name."""
    return {
        member.name: ModelRef(
            name=member.name,
            base=locate(member.base, run.recipe.pool.folder),
            adapter=run.state.inside(member.adapter),
            version=member.sha256[:12],
        )
        for member in run.pool(t).values()
    }


def settled_for(run: Run, settings: recipe_engine.EngineSettings) -> recipe_engine.EngineSettings:
    """`settings` as settled for the bases of the run's pool."""
    return settled(settings, [locate(base, run.recipe.pool.folder) for base in run.bases.values()])


def engine_for(run: Run, settings: recipe_engine.EngineSettings, models: Collection[ModelRef]) -> Engine:
    """The process's engine with a phase's `settings`, expecting `models` of the pool. Which engine it is does not depend on which models these are.

    Raises SpartaError if it cannot serve one of them, or if the weights of one were removed on purpose.
    """
    weights = [model.adapter / WEIGHTS for model in models if model.adapter is not None]
    require_unpruned(run.state, weights, "a model that answers")
    engine = open_engine(
        settled_for(run, settings),
        run.recipe.pool.trust_remote_code,
        run.state.calls,
        chat=run.chat,
        compiled=run.state.compiled,
    )
    engine.expect(models)
    return engine


def judge_named(recipe: Recipe) -> JudgeModel:
    """The evaluation judge of the recipe. Raises SpartaError if there is none."""
    if recipe.evaluation.judge is None:
        raise SpartaError("the recipe names no judge, but some metrics need one: set evaluation.judge")
    return recipe.evaluation.judge


def judge_reference(recipe: Recipe) -> ModelRef:
    """The evaluation judge as its engine needs it."""
    judge, folder = judge_named(recipe), recipe.pool.folder
    adapter = Path(locate(judge.adapter, folder)) if judge.adapter else None
    return ModelRef("judge", locate(judge.base, folder), adapter, _version_of(adapter) if adapter else "")


@cache
def _version_of(adapter: Path) -> str:
    """The version of the judge's adapter, cached because it is needed often."""
    return files.sha256_tree(adapter)[:12]


def judge_engine(run: Run, settings: recipe_engine.EngineSettings, model: ModelRef) -> Engine:
    """The process's engine with the evaluation judge's `settings`, expecting `model`. It replaces the pool's engine."""
    engine = open_engine(
        settled(settings, [model.base]),
        run.recipe.pool.trust_remote_code,
        run.state.judge_calls,
        "evaluation.judge.engine",
        run.judge_chat,
        run.state.compiled,
    )
    engine.expect([model])
    return engine
