"""Exporting one model of a run: a folder that PEFT, transformers and vLLM load, with a model card made from the state."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sparta.commands.model_card import Exported, model_card
from sparta.errors import SpartaError
from sparta.evaluation.answer import checkpoint_name
from sparta.evaluation.selection import ALL, INITIAL, LAST
from sparta.evaluation.summary import CheckpointChoice, read_summary
from sparta.names import hint, quoted, suggested
from sparta.pool.hub_upload import prepare_upload, require_token, upload
from sparta.pool.members import locate
from sparta.recipes.pool import EMBEDDED
from sparta.screen import Screen
from sparta.store import files
from sparta.store.layout import StateDir, parse_checkpoint
from sparta.store.pruned import require_unpruned
from sparta.store.records import Member
from sparta.store.run import Run
from sparta.training.adapter_folder import CONFIG, WEIGHTS, encode_config

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "chat_template.jinja",
)
"""Files of the base that turn texts into tokens."""
CARD = "README.md"


@dataclass(frozen=True)
class ExportRequest:
    """The options of the command; see its --help. state: the run."""

    state: Path
    best: bool = False
    task: str | None = None
    model: str | None = None
    iteration: int | None = None
    merge: bool = False
    out: Path | None = None
    push: str | None = None


def export_model(request: ExportRequest, screen: Screen) -> Path:
    """Make the requested folder, and upload it if that is requested. Returns the folder.

    Raises SpartaError where no checkpoint was chosen, where the model is not there, was changed or removed, where the folder exists, and where the
    hub refuses.
    """
    if request.push is not None:
        require_token(request.push)
    run = Run.open(StateDir(request.state))
    t, name = _chosen(run, request)
    member = _member(run, t, name)
    out = (
        request.out
        or run.state.root / "exports" / f"{checkpoint_name(run, t, name)}{'-merged' * request.merge}"
    )
    if out.exists():
        raise _exists(out)
    base = Path(locate(member.base, run.recipe.pool.folder))
    made = Exported(run, t, member, base, request.merge)
    if request.push is not None and not request.merge and made.public_base is None:
        raise SpartaError(
            f"{quoted('--push', request.push)}: the base {member.base} of the adapter is not from the hub, so nobody could load it: add --merge"
        )
    contents = _tokenizer(base)
    if request.push is not None:
        prepare_upload(request.push)
    adapter = run.state.inside(member.adapter)

    def write(folder: Path) -> None:
        if request.merge:
            _merge(made, adapter, folder)
        else:
            files.write_bytes(folder / WEIGHTS, files.read_bytes(adapter / WEIGHTS))
            files.write_bytes(folder / CONFIG, _config(made, adapter))
        for file, content in contents.items():
            files.write_bytes(folder / file, content)
        files.write_bytes(folder / CARD, model_card(made).encode())

    if not files.put_tree(out, write):
        raise _exists(out)
    screen.say(
        f"{name} of iteration {t} is in {out}: {'merged weights' if request.merge else 'the adapter'}, tokenizer, model card ({CARD})"
    )
    if request.push is not None:
        screen.say(
            f"uploaded to {upload(out, request.push, screen)}, which is private unless you made it public"
        )
    else:
        screen.say(f"try it: {made.trial(out)}")
    return out


def _exists(out: Path) -> SpartaError:
    return SpartaError(f"{out} exists already: name another folder with --out, or remove it")


def _chosen(run: Run, request: ExportRequest) -> tuple[int, str]:
    """Iteration and name of the requested model."""
    if request.model is not None:
        if request.best or request.task is not None:
            raise SpartaError("--model names the model already: leave --best and --task out")
        last = run.state.last_committed()
        if last is None:
            raise SpartaError(f"{run.state.root} has no committed pool yet: launch it first")
        return (last if request.iteration is None else request.iteration), request.model
    if request.iteration is not None:
        raise SpartaError(
            f"{quoted('--iteration', request.iteration)} needs --model: name the member of that pool"
        )
    choices: dict[str, dict[str, CheckpointChoice]] = {}
    for scores in read_summary(run.state).tasks.values():
        for choice in scores.choices:
            choices.setdefault(choice.chosen_on, {})[choice.what] = choice
    tasks = list(choices)
    remedy = f"run {suggested('evaluate', run.state.root, '--all')}, or name a model with --model"
    if not tasks:
        raise SpartaError(f"no checkpoint of {run.state.root} was chosen on validation yet: {remedy}")
    if request.task is not None and request.task not in tasks:
        raise SpartaError(f"no checkpoint was chosen on {request.task}; {hint(request.task, tasks, 'tasks')}")
    if request.task is None and len(tasks) > 1:
        raise SpartaError(
            f"checkpoints were chosen on {', '.join(tasks)}: name one of these tasks with --task"
        )
    chosen = choices[request.task or tasks[0]]
    choice = next(chosen[what] for what in (ALL, LAST, INITIAL) if what in chosen)
    return parse_checkpoint(choice.checkpoint)


def _member(run: Run, t: int, name: str) -> Member:
    """The member `name` of the pool of iteration t, its adapter unchanged since its commit."""
    if t not in run.state.committed():
        raise SpartaError(
            f"iteration {t} of {run.state.root} is not committed: name another one with --iteration"
        )
    pool = run.pool(t)
    if name not in pool:
        raise SpartaError(f"the pool has no model {name}; {hint(name, pool, 'models')}")
    member = pool[name]
    adapter = run.state.inside(member.adapter)
    require_unpruned(run.state, [adapter / WEIGHTS], f"the export of {name} of iteration {t}")
    if not (adapter / WEIGHTS).is_file() or files.sha256_tree(adapter) != member.sha256:
        raise SpartaError(f"{adapter} is incomplete or was changed since its commit: restore it from a copy")
    return member


def _tokenizer(base: Path) -> Mapping[str, bytes]:
    """The base's tokenizer and chat template, by file name. Raises SpartaError where the base is not there."""
    found = {name: files.read_bytes(base / name) for name in TOKENIZER if (base / name).is_file()}
    if not found:
        raise SpartaError(f"{base} has no tokenizer: put the base there again, the export needs it")
    return found


def _config(made: Exported, adapter: Path) -> bytes:
    """adapter_config.json, with a base that other programs find: of an embedded base its folder."""
    config = files.read_json(adapter / CONFIG, dict)
    if made.member.base.startswith(EMBEDDED):
        config = {**config, "base_model_name_or_path": str(made.base)}
    return encode_config(config)


def _merge(made: Exported, adapter: Path, folder: Path) -> None:
    """Write the base's weights with the adapter merged into them, in the base's own type, and its configuration."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from sparta.engines.weights import quiet_transformers

    quiet_transformers()
    trusted = made.run.recipe.pool.trust_remote_code
    base = AutoModelForCausalLM.from_pretrained(made.base, dtype="auto", trust_remote_code=trusted)
    merged = PeftModel.from_pretrained(base, adapter).merge_and_unload(safe_merge=True)
    merged.save_pretrained(folder)
    # safetensors makes files that nobody else may read.
    for path in folder.glob("*.safetensors"):
        path.chmod((folder / "config.json").stat().st_mode)
