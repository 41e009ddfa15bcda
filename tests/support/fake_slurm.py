"""A stand-in for the commands of a SLURM with several clusters, as a script on PATH; it keeps its jobs in a file and notes what it was asked.

It prints what SLURM 22.05 with slurmdbd was seen to print. Ids are given out by each cluster for itself, from the same number on.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

COMMANDS = ("sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo", "sacctmgr")
FIRST = 100

SCRIPT = """
import json, os, re, sys
from pathlib import Path

folder, name, asked = Path({folder!r}), Path(sys.argv[0]).name, sys.argv[1:]
state = json.loads((folder / "slurm.json").read_text())
inherited = [key for key in ("SLURM_CLUSTERS", "SBATCH_CLUSTERS") if key in os.environ]
state["asked"].append([name, *asked, *inherited])

def end(said="", wrong="", status=0):
    (folder / "slurm.json").write_text(json.dumps(state))
    print(said, end="")
    print(wrong, end="", file=sys.stderr)
    sys.exit(status)

script = ""
if name == "sbatch":
    script = Path(asked[-1]).read_text()
    asked += re.findall(r"^#SBATCH (--\\S+)", script, re.MULTILINE)
options = dict(option.removeprefix("--").partition("=")[::2] for option in asked if option.startswith("--"))
words = [word for word in asked if not word.startswith("--")]
named = options["clusters"].split(",") if "clusters" in options else [state["own"]]
if named == ["all"]:
    named = state["clusters"]
for cluster in named:
    if cluster not in state["clusters"]:
        end(wrong=f"{{name}}: error: No cluster '{{cluster}}' known by database.\\n", status=1)
    if cluster in state["down"] and name != "sbatch":
        end(wrong=f"{{name}}: error: Unable to contact slurm controller (connect failure)\\n", status=1)

if name == "sbatch":
    if state["refusal"]:
        end(wrong=f"sbatch: error: {{state['refusal']}}\\n", status=1)
    cluster = state["turns"].pop(0) if state["turns"] else next(one for one in reversed(state["clusters"]) if one in named)
    number = state["next"][cluster]
    state["next"][cluster] += 1
    first, last = (options.get("array", "0-0").partition("%")[0].split("-") + ["0"])[:2]
    state["jobs"] += [
        dict(cluster=cluster, job=number, element=element, array="array" in options, name=options["job-name"], folder=options["chdir"].strip("'\\""),
             state="PENDING", reason="JobHeldUser" if "hold" in options else "Priority", dependency=options.get("dependency"))
        for element in range(int(first), int(last) + 1)
    ]
    where = f" on cluster {{cluster}}" if "clusters" in options else ""
    say = state["answer"] or "Submitted batch job {{number}}{{where}}"
    end(say.format(number=number, where=where, cluster=cluster) + "\\n")
if name == "squeue":
    wanted = options["name"].split(",")
    rows = [row for row in state["jobs"] if row["cluster"] in named and row["name"] in wanted]
    end("".join(
        f"{{row['job']}}|{{row['element'] if row['array'] else 'N/A'}}|{{row['state']}}|{{row['reason']}}||{{row['name']}}|{{row['folder']}}\\n" for row in rows
    ))
if name in ("scancel", "scontrol") and words[:2] != ["show", "config"]:
    for row in state["jobs"]:
        mine = {{str(row["job"]), f"{{row['job']}}_{{row['element']}}"}}
        if row["cluster"] in named and mine & set(words):
            row.update(state="CANCELLED", reason="None") if name == "scancel" else row.update(reason="Priority")
    end()
if name == "scontrol":
    end(f"ClusterName             = {{named[0]}}\\nMaxArraySize            = {{state['largest'][named[0]]}}\\n")
if name == "sinfo":
    end("".join(f"{{partition}}|{{limit}}\\n" for one in named for partition, limit in state["partitions"][one].items()))
if name == "sacctmgr":
    end("".join(f"{{one}}\\n" for one in state["clusters"]))
"""


class FakeSlurm:
    """Clusters alpha and beta; commands that name none ask `own`. sbatch prefers beta, or takes the next of `turns`."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, own: str = "alpha") -> None:
        self._file = folder / "slurm.json"
        program = folder / "slurm.py"
        program.write_text(f"#!{sys.executable} -S\n{SCRIPT.format(folder=str(folder))}")
        program.chmod(0o755)
        (folder / "bin").mkdir()
        for name in COMMANDS:
            (folder / "bin" / name).symlink_to(program)
        names = ("alpha", "beta")
        self._write(
            {
                "own": own,
                "clusters": list(names),
                "down": [],
                "turns": [],
                "next": dict.fromkeys(names, FIRST),
                "largest": dict.fromkeys(names, 1001),
                "partitions": {name: {"gpu": "infinite", "cpu": "1:00:00"} for name in names},
                "jobs": [],
                "asked": [],
                "answer": "",
                "refusal": "",
            }
        )
        patch.setenv("PATH", str(folder / "bin"), prepend=os.pathsep)
        for name in ("SLURM_CLUSTERS", "SBATCH_CLUSTERS", "SLURM_JOB_ID"):
            patch.delenv(name, raising=False)

    def _write(self, state: dict[str, Any]) -> None:
        self._file.write_text(json.dumps(state))

    def set(self, **changes: Any) -> None:
        self._write(json.loads(self._file.read_text()) | changes)

    @property
    def jobs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self._file.read_text())["jobs"]
        return found

    def tell(self, cluster: str, **changes: Any) -> None:
        """Change fields of all jobs on a cluster."""
        self.set(jobs=[job | changes if job["cluster"] == cluster else job for job in self.jobs])

    def asked(self, command: str) -> list[list[str]]:
        """What each call of `command` was asked since the last look, and which choices of a person's own it inherited."""
        state = json.loads(self._file.read_text())
        found = [call[1:] for call in state["asked"] if call[0] == command]
        self._write(state | {"asked": [call for call in state["asked"] if call[0] != command]})
        return found
