"""The training data of the paper's ten experts (appendix C.3): subsets of Tulu-v2, from the mixture, from their own repositories or from files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

from sparta.tasks.chats import Chats, Turn, collected
from sparta.tasks.dataset import HubSplit, LocalFile, Rows, Source
from sparta.tasks.sft_data import formats
from sparta.tasks.sft_data.formats import Form

MIXTURE = "allenai/tulu-v2-sft-mixture"
REVISION = "6248b175d2ccb5ec7c4aeb22e6d8ee3b21b2c752"
COT = ("aqua", "creak", "ecqa", "esnli", "gsm8k", "qasc", "qed", "sensemaking", "strategyqa")
"""The sources of Flan's chain-of-thought collection, one file each."""


@dataclass(frozen=True)
class Subset:
    """A set of chats to train an expert on. hub: its part of the mixture. single: its own repository; None if that has no known format."""

    name: str
    title: str
    local: Source[Chats]
    hub: Source[Chats]
    single: Source[Chats] | None
    licence: str


@dataclass(frozen=True)
class _Group:
    """Files that form a subset together, each with its format, and a note for the provenance."""

    files: Mapping[str, tuple[LocalFile | HubSplit, Form]]
    note: str = ""


def _source(*groups: _Group) -> Source[Chats]:
    """A source that uses the first of `groups` with any rows, and within it the files that exist."""
    every = {key: file for group in groups for key, (file, _) in group.files.items()}
    return Source(every, partial(_read, groups), frozenset(every))


def _read(groups: Sequence[_Group], rows: Rows) -> Chats:
    for group in groups:
        chats = _chats(group, rows)
        first = next(chats, None)
        if first is not None:
            return collected(chain([first], chats), [group.note] if group.note else [])
    return Chats(())


def _chats(group: _Group, rows: Rows) -> Iterator[tuple[str, list[Turn]]]:
    for key, (_, form) in group.files.items():
        for number, turns in enumerate(form(rows(key))):
            yield f"{key}-{number}", turns


def _of_mixture(only: str, note: str = "") -> Source[Chats]:
    split = HubSplit(MIXTURE, None, "train", REVISION, "dataset", only)
    return _source(_Group({only: (split, formats.messages)}, note))


def _alone(name: str, repository: str, form: Form, note: str = "") -> Source[Chats]:
    """A subset's own repository, without a pinned revision."""
    return _source(_Group({name: (HubSplit(repository, None, "train"), form)}, note))


def _file(name: str, form: Form, file: LocalFile, note: str = "") -> _Group:
    return _Group({name: (file, form)}, note)


def _as_messages(name: str, note: str = "") -> _Group:
    """Rows in the format of the mixture, JSON Lines."""
    file = LocalFile(f"{name}_data.jsonl", origin=f"rows with messages, as those of {MIXTURE}")
    return _file(f"{name}_data", formats.messages, file, note)


def _cot(ending: str, origin: str, note: str = "") -> _Group:
    columns = ("question", "answer", "rationale")
    files = {
        name: LocalFile(f"{name}_train{ending}", origin=origin.format(name=name), columns=columns)
        for name in COT
    }
    return _Group(
        {f"{name}{ending.removesuffix('.tsv')}": (file, formats.reasoned) for name, file in files.items()},
        note,
    )


_FLAN = "github.com/google-research/FLAN: flan/v2/cot_data/{name}_train.tsv"
_UNTEMPLATED = "the sources of Flan's chain-of-thought collection without its prompt templates, answers after their rationales"
_STAND_IN = "a stand-in: the paper's answers, by gemini-1.5-pro-001, are not published; these are GPT-4's to Alpaca's prompts"
_EVALUATIONS = "SciFact as multiple choice and Qasper with its papers, as published for evaluation; not Tulu-v2's own forms, and two of its six sources"

_SUBSETS = (
    Subset(
        "flan_v2",
        "Flan v2",
        local=_source(_as_messages("flan_v2")),
        hub=_of_mixture("flan_v2"),
        single=None,
        licence="Apache-2.0",
    ),
    Subset(
        "cot",
        "Flan chain of thought",
        local=_source(
            _as_messages("cot"),
            _cot(".tsv", _FLAN, _UNTEMPLATED),
            _cot(".first285.tsv", f"the first 285 rows of {_FLAN}", f"{_UNTEMPLATED}; 285 rows of each"),
        ),
        hub=_of_mixture("cot"),
        single=None,
        licence="Apache-2.0",
    ),
    Subset(
        "oasst1",
        "Open Assistant 1",
        local=_source(_as_messages("oasst1")),
        hub=_of_mixture("oasst1"),
        single=_alone(
            "oasst1",
            "OpenAssistant/oasst1",
            formats.best_path,
            "of each tree the path of the best ranked replies, in all languages",
        ),
        licence="Apache-2.0",
    ),
    Subset(
        "sharegpt",
        "ShareGPT",
        local=_source(
            _as_messages("sharegpt"),
            _file(
                "sharegpt",
                formats.conversations,
                LocalFile(
                    "ShareGPT_V3_unfiltered_cleaned_split.json",
                    origin="huggingface.co/datasets/anon8231489123/ShareGPT_Vicuna_unfiltered",
                ),
            ),
        ),
        hub=_of_mixture("sharegpt"),
        single=None,
        licence="none stated",
    ),
    Subset(
        "code_alpaca",
        "Code Alpaca",
        local=_source(
            _as_messages("code_alpaca"),
            _file(
                "20k",
                formats.ALPACA,
                LocalFile(
                    "code_alpaca_20k.json",
                    origin="github.com/sahil280114/codealpaca: data/code_alpaca_20k.json",
                ),
            ),
            _file(
                "2k",
                formats.ALPACA,
                LocalFile(
                    "code_alpaca_2k.json",
                    origin="github.com/sahil280114/codealpaca: data/code_alpaca_2k.json",
                ),
                "the repository's small file; Tulu-v2 has the one of 20,022 rows, code_alpaca_20k.json",
            ),
        ),
        hub=_of_mixture("code_alpaca"),
        single=_alone("20k", "sahil2801/CodeAlpaca-20k", formats.ALPACA),
        licence="CC BY-NC 4.0",
    ),
    Subset(
        "lima",
        "LIMA",
        local=_source(
            _as_messages("lima"),
            _file(
                "lima",
                formats.alternating,
                LocalFile("train.jsonl", "lima", "huggingface.co/datasets/GAIR/lima: train.jsonl"),
            ),
        ),
        hub=_of_mixture("lima"),
        single=_alone("lima", "GAIR/lima", formats.alternating),
        licence="CC BY-NC-SA, or that of the source where it is stricter",
    ),
    Subset(
        "wizardlm",
        "WizardLM Evol-Instruct V2",
        local=_source(
            _as_messages("wizardlm"),
            _file(
                "143k",
                formats.conversations,
                LocalFile(
                    "WizardLM_evol_instruct_V2_143k.json",
                    origin="huggingface.co/datasets/WizardLMTeam/WizardLM_evol_instruct_V2_196k",
                ),
                "all of its rows; Tulu-v2 has 30,000 of them",
            ),
        ),
        hub=_of_mixture("wizardlm"),
        single=_alone(
            "143k",
            "WizardLMTeam/WizardLM_evol_instruct_V2_196k",
            formats.conversations,
            "all of its rows; Tulu-v2 has 30,000 of them",
        ),
        licence="CC BY-NC 4.0",
    ),
    Subset(
        "open_orca",
        "OpenOrca",
        local=_source(_as_messages("open_orca")),
        hub=_of_mixture("open_orca"),
        single=None,
        licence="MIT",
    ),
    Subset(
        "science",
        "Science",
        local=_source(
            _as_messages("science"),
            _Group(
                {
                    "scifact": (
                        LocalFile(
                            "scifact.json",
                            origin="github.com/BunsenFeng/model_swarm: data/eval/scifact.json",
                            parts=("dev", "test"),
                        ),
                        formats.judged,
                    ),
                    "qasper": (
                        LocalFile(
                            "qasper.json",
                            origin="github.com/BunsenFeng/heterogeneous_swarm: data/eval/qasper.json",
                            parts=("dev", "test"),
                        ),
                        formats.read_up,
                    ),
                },
                _EVALUATIONS,
            ),
        ),
        hub=_of_mixture("science"),
        single=None,
        licence="those of its sources; the mixture ODC-BY",
    ),
    Subset(
        "gemini_alpaca",
        "Gemini Alpaca",
        local=_source(
            _as_messages("gemini_alpaca"),
            _as_messages("gpt4_alpaca", _STAND_IN),
            _file(
                "gpt4",
                formats.ALPACA,
                LocalFile(
                    "alpaca_gpt4_data.json",
                    origin="github.com/Instruction-Tuning-with-GPT-4/GPT-4-LLM: data/alpaca_gpt4_data.json",
                ),
                _STAND_IN,
            ),
        ),
        hub=_of_mixture("gpt4_alpaca", _STAND_IN),
        single=_alone("gpt4", "vicgalle/alpaca-gpt4", formats.ALPACA, _STAND_IN),
        licence="CC BY-NC 4.0",
    ),
)

SUBSETS: Mapping[str, Subset] = {subset.name: subset for subset in _SUBSETS}
"""The paper's ten subsets, in its order."""

DOLLY = Subset(
    "dolly",
    "Databricks Dolly",
    local=_source(
        _file(
            "15k",
            formats.DOLLY,
            LocalFile(
                "databricks-dolly-15k.jsonl", origin="huggingface.co/datasets/databricks/databricks-dolly-15k"
            ),
        ),
        _file(
            "3k",
            formats.ALPACA,
            LocalFile("dolly_3k.json", origin="github.com/gpt4life/alpagasus: data/filtered/dolly_3k.json"),
            "a filtered part of it",
        ),
    ),
    hub=_alone("15k", "databricks/databricks-dolly-15k", formats.DOLLY),
    single=None,
    licence="CC BY-SA 3.0",
)
"""Not one of the ten: human-written and freely licensed, a replacement if LIMA or Open Assistant are not available."""

SFT_DATA: dict[str, Subset] = {**SUBSETS, DOLLY.name: DOLLY}
"""All subsets for experts: the paper's ten, and Dolly."""
