"""From the recipe's pool to models that engines and training can load, and to M^0 in the state; and from its judge of evaluations to one."""

import shutil
from collections.abc import Collection
from functools import cache
from pathlib import Path

from sparta import recipe_engine, toy
from sparta.engines.adapters import check_adapter
from sparta.engines.base import Engine, ModelRef
from sparta.engines.factory import check_engine, open_engine
from sparta.engines.tokenizers import check_base
from sparta.errors import SpartaError
from sparta.recipe import Judge, Judging, Recipe
from sparta.store import files
from sparta.store.records import Member
from sparta.store.run import Run
from sparta.training.adapter_folder import check_trainable

EMBEDDED = "embedded:"


def locate(reference: str) -> str:
    """A folder for `embedded:NAME` (a part of the toy pool that ships with the code); anything else as it is."""
    if not reference.startswith(EMBEDDED):
        return reference
    name = reference.removeprefix(EMBEDDED)
    folders = {"base": toy.BASE, **toy.ADAPTERS}
    if name not in folders:
        raise SpartaError(f"there is no embedded model {name}: known are {', '.join(folders)}")
    return str(folders[name])


def check_pool(recipe: Recipe) -> None:
    """Everything about the pool that can be checked without loading a weight. Raises SpartaError naming the model."""
    if recipe.engine.kind == "scripted":
        return
    for model in recipe.pool.models:
        base = locate(recipe.pool.base_of(model))
        _require_base(f"model {model.name}", base)
        if model.adapter is None:
            raise SpartaError(
                f"model {model.name} has no adapter: name a LoRA adapter to train, full models are not trained yet"
            )
        try:
            check_base(base)
            check_adapter(Path(locate(model.adapter)), Path(base))
            check_trainable(model.name, Path(locate(model.adapter)))
        except SpartaError as error:
            raise SpartaError(f"model {model.name}: {error}") from None
    check_engine(
        recipe.engine,
        [
            ModelRef(
                model.name,
                locate(recipe.pool.base_of(model)),
                Path(locate(model.adapter)) if model.adapter else None,
                version="0",
            )
            for model in recipe.pool.models
        ],
        recipe.judging,
        recipe.pool.trust_remote_code,
    )


def install_pool(run: Run) -> list[Member]:
    """Copy the recipe's adapters to iter_00/adapters and return M^0: the state needs nothing but the bases from elsewhere."""
    members = []
    iteration = run.iteration(0)
    for model in run.recipe.pool.models:
        base = run.recipe.pool.base_of(model)
        if model.adapter is None:
            members.append(Member(model.name, base, None, ""))
            continue
        source, target = Path(locate(model.adapter)), iteration.adapter(model.name)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            with files.touching(source / name):
                content = (source / name).read_bytes()
            files.write_bytes(target / name, content)
        members.append(
            Member(model.name, base, str(target.relative_to(run.state.root)), files.sha256_tree(target))
        )
    return members


def references(run: Run, t: int) -> dict[str, ModelRef]:
    """M^t as engines take it, by name."""
    return {
        member.name: ModelRef(
            name=member.name,
            base=locate(member.base),
            adapter=run.state.root / member.adapter if member.adapter else None,
            version=member.sha256[:12],
        )
        for member in run.pool(t).values()
    }


def engine_for(run: Run, settings: recipe_engine.Engine, models: Collection[ModelRef]) -> Engine:
    """The process's engine with `settings`, those of a phase, told of `models` of the pool. Raises SpartaError where one of them cannot work."""
    engine = open_engine(settings, run.recipe.pool.trust_remote_code, run.state.calls)
    engine.expect(models)
    return engine


def judge_named(recipe: Recipe) -> Judge:
    """The judge of the recipe's evaluation. Raises SpartaError where it names none."""
    if recipe.evaluation.judge is None:
        raise SpartaError("the recipe names no judge for what only a judge can grade: set evaluation.judge")
    return recipe.evaluation.judge


def judge_reference(recipe: Recipe) -> ModelRef:
    """The judge of the recipe's evaluation as its engine takes it."""
    judge = judge_named(recipe)
    adapter = Path(locate(judge.adapter)) if judge.adapter else None
    return ModelRef("judge", locate(judge.base), adapter, _version_of(adapter) if adapter else "")


@cache
def _version_of(adapter: Path) -> str:
    """The version of the judge's adapter, read once by a process: it is asked for whenever grades are looked for."""
    return files.sha256_tree(adapter)[:12]


def check_judge(recipe: Recipe) -> None:
    """Everything about the judge of evaluations that can be checked without loading a weight or asking an endpoint. Raises SpartaError."""
    judge, model = judge_named(recipe), judge_reference(recipe)
    weights = judge.engine.kind not in ("scripted", "api")
    if weights:
        _require_base("evaluation.judge", model.base)
    try:
        if weights:
            check_base(model.base)
            if model.adapter is not None:
                check_adapter(model.adapter, Path(model.base))
        check_engine(judge.engine, [model], Judging(), recipe.pool.trust_remote_code)
    except SpartaError as error:
        raise SpartaError(f"evaluation.judge: {error}") from None


def judge_engine(run: Run, settings: recipe_engine.Engine, model: ModelRef) -> Engine:
    """The process's engine with `settings`, those of the judge of evaluations, told of it. The pool's is closed for it."""
    engine = open_engine(
        settings, run.recipe.pool.trust_remote_code, run.state.judge_calls, "evaluation.judge.engine"
    )
    engine.expect([model])
    return engine


def _require_base(who: str, base: str) -> None:
    if not (Path(base) / "config.json").is_file():
        raise SpartaError(f"{who}: its base {base} is no folder with a config.json; put the base model there")


def remove_tree(folder: Path) -> None:
    """Remove a folder of half-done work, if it is there."""
    if folder.exists():
        shutil.rmtree(folder)
