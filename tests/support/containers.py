"""Stand-ins for apptainer and pyxis: commands on PATH that run a task where only the image and what is mounted can be seen.

They need root. `apptainer` understands `exec` with the options of the suite; `srun` understands those of pyxis, takes them out and starts the task in
the same way, through the real srun. An image is a text file that lists folders of this host, which are read-only inside; /proc, /sys and /dev are the
host's, /tmp is empty, and everything else, such as the state, the checkout, SLURM's configuration and the home folder, is there only if it is
mounted. What they do not have: namespaces for users, registries, GPUs, and a Linux of their own.
"""

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

ENTER = r"""#!/bin/bash
# IMAGE FOLDER MOUNT... -- COMMAND...
set -euo pipefail
root=$(dirname "$1")/root
if [[ ${INSIDE:-} != yes ]]; then INSIDE=yes exec unshare --mount --propagation private "$0" "$@"; fi
unset INSIDE
[[ -f $1 ]] || { echo "FATAL: could not open image $1: no such file or directory" >&2; exit 255; }
mkdir -p "$root"
mount -t tmpfs image "$root"
seen() {
    if [[ -d $1 ]]; then mkdir -p "$root$2"; else mkdir -p "$(dirname "$root$2")"; : >"$root$2"; fi
    mount --rbind "$1" "$root$2"
    if [[ $3 == ro ]]; then mount -o remount,bind,ro "$root$2"; fi
}
while read -r part; do seen "$part" "$part" ro; done <"$1"
for part in /proc /sys /dev; do seen "$part" "$part" rw; done
mkdir -p "$root/tmp"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
folder=$2
shift 2
while [[ $1 != -- ]]; do
    IFS=: read -r host inside how <<<"$1"
    [[ -e $host ]] || { echo "FATAL: mount source $host does not exist" >&2; exit 255; }
    seen "$host" "$inside" "$how"
    shift
done
shift
mount -o remount,ro "$root"
[[ -d $root$folder ]] || { echo "FATAL: there is no folder $folder in the container" >&2; exit 255; }
echo "in the stand-in for a container" >&2
exec chroot "$root" /usr/bin/env --chdir="$folder" "$@"
"""

APPTAINER = r"""#!/bin/bash
[[ $1 == exec ]] || { echo "FATAL: this stand-in knows only exec" >&2; exit 255; }
shift
mounts=() folder=/
while [[ $1 == -* ]]; do
    case $1 in
    --bind=*) mounts+=("${1#*=}") ;;
    --pwd=*) folder=${1#*=} ;;
    --nv | --no-home) ;;
    *) echo "Error for command \"exec\": unknown flag: $1" >&2; exit 1 ;;
    esac
    shift
done
image=$1
shift
exec ENTER "$image" "$folder" "${mounts[@]}" -- "$@"
"""

PYXIS = r"""#!/bin/bash
if [[ $1 == --help ]]; then
    REAL --help
    echo "Options provided by plugins:"
    echo "      --container-image=[USER@][REGISTRY#]IMAGE[:TAG]|PATH"
    exit
fi
options=() mounts=() image= folder=/
while [[ $# -gt 0 && $1 != env ]]; do
    case $1 in
    --container-image=*) image=${1#*=} ;;
    --container-mounts=*) IFS=, read -ra mounts <<<"${1#*=}" ;;
    --container-workdir=*) folder=${1#*=} ;;
    --no-container-mount-home) ;;
    --container*) echo "srun: unrecognized option '$1'" >&2; exit 1 ;;
    *) options+=("$1") ;;
    esac
    shift
done
[[ -n $image ]] || exec REAL "${options[@]}" "$@"
exec REAL "${options[@]}" ENTER "$image" "$folder" "${mounts[@]}" -- "$@"
"""


def stand_in(folder: Path, kind: str) -> tuple[Path, str]:
    """An image with the Python of this process, and a PATH that has the stand-in for `kind` (apptainer or pyxis). folder: for both, new."""
    folder.mkdir()
    image = folder / "image.sif"
    parts = ["/usr", "/bin", "/lib", "/lib64", "/etc", sys.prefix, sys.base_prefix]
    image.write_text("".join(f"{part}\n" for part in dict.fromkeys(parts) if Path(part).exists()))
    program, script = ("apptainer", APPTAINER) if kind == "apptainer" else ("srun", PYXIS)
    texts = {"enter": ENTER, program: script}
    for name, text in texts.items():
        filled = text.replace("ENTER", str(folder / "bin" / "enter")).replace(
            "REAL", shutil.which(name) or ""
        )
        (folder / "bin").mkdir(exist_ok=True)
        (folder / "bin" / name).write_text(filled)
        (folder / "bin" / name).chmod(0o755)
    return image, f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"


@cache
def why_none() -> str:
    """Why this machine has no stand-in; empty where it has."""
    if os.geteuid() != 0:
        return "only root can mount what a container sees"
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True)
    return f"this machine allows no mounts: {done.stderr.strip()}" if done.returncode else ""
