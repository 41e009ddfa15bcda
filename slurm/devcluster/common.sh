# What up.sh, down.sh and node.sh share: where the cluster is, and which processes belong to it. Sourced, never run.
# shellcheck shell=bash disable=SC2034,SC2120  # names and arguments that only the sourcing scripts use

folder=${SPARTA_DEVCLUSTER:-/tmp/sparta-devcluster}
port=${SPARTA_DEVCLUSTER_PORT:-17600}
nodes=(node1 node2 node3 node4 cpu1)

conf=$folder/slurm.conf
marker=$folder/.sparta-devcluster
socket=$folder/munge/socket

say() { printf 'devcluster: %s\n' "$*" >&2; }
fail() {
    say "$@"
    exit 1
}

require_root() {
    [[ $EUID -eq 0 ]] || fail "only root can start and stop SLURM's daemons and make device files: run it as root, or with sudo -E."
}

require_programs() {
    local program missing=()
    for program in slurmctld slurmd slurmstepd munged munge scontrol sinfo squeue scancel perl; do
        command -v "$program" >/dev/null || missing+=("$program")
    done
    [[ ${#missing[@]} -eq 0 ]] || fail "not found on PATH: ${missing[*]}; SLURM comes with: apt-get install slurm-wlm munge"
}

# slurm.conf cannot quote a path, and a socket's path may have at most 107 characters.
require_sane_settings() {
    [[ $folder =~ ^(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$ && ${#folder} -le 64 ]] ||
        fail "SPARTA_DEVCLUSTER must be an absolute path of at most 64 letters, digits, '.', '_', '-' and '/', not '$folder'."
    [[ $port =~ ^[1-9][0-9]{3,4}$ && $port -le 65530 ]] ||
        fail "SPARTA_DEVCLUSTER_PORT must be a number from 1024 to 65530, not '$port'."
    [[ ! -L $folder ]] || fail "$folder is a symbolic link; name a folder of its own in SPARTA_DEVCLUSTER."
    [[ ! -e $folder || (-d $folder && -O $folder) ]] ||
        fail "$folder exists and is not a folder owned by root; name another one in SPARTA_DEVCLUSTER."
    [[ ! -d $folder || -e $marker || -z $(ls -A "$folder") ]] ||
        fail "$folder holds something other than a devcluster; name another folder in SPARTA_DEVCLUSTER."
}

# The lock is on the folder itself, so it leaves nothing behind. down.sh may remove the folder while up.sh waits.
lock() {
    local create=$1
    while :; do
        [[ -d $folder ]] || { [[ $create == create ]] && mkdir -p "$folder"; } || return 1
        exec 9<"$folder" || continue
        flock -w 60 9 || fail "another up.sh, down.sh or node.sh has held $folder for a minute; wait for it or end it."
        [[ $folder -ef /proc/self/fd/9 ]] && return 0
    done
}

# daemon PROGRAM [ARGUMENT]: ids of the running PROGRAMs that were started with this cluster's file (and with ARGUMENT).
# Read from /proc, because a pid file may be stale and its number may belong to another process by now.
daemon() {
    local file pid name own=$conf
    [[ $1 == munged ]] && own=--socket=$socket
    while IFS= read -r file; do
        pid=${file#/proc/}
        pid=${pid%/cmdline}
        { read -r name <"/proc/$pid/comm"; } 2>/dev/null || continue
        [[ $name == "$1" ]] || continue
        [[ $# -eq 1 ]] || grep -qzFx -- "$2" "/proc/$pid/cmdline" 2>/dev/null || continue
        echo "$pid"
    done < <(grep -lszFx -- "$own" /proc/[0-9]*/cmdline)
}

# holders NAME LOG: ids of the processes called NAME that have a log of this cluster open; LOG may be a pattern.
holders() {
    local entry file name
    for entry in /proc/[0-9]*; do
        { read -r name <"$entry/comm"; } 2>/dev/null || continue
        [[ $name == "$1" ]] || continue
        for file in "$entry"/fd/*; do
            # shellcheck disable=SC2053  # a pattern on purpose
            [[ $(readlink "$file" 2>/dev/null) == $folder/log/$2 ]] || continue
            echo "${entry#/proc/}"
            break
        done
    done
}

# The controller, and the child that runs its scripts; the child outlives a controller killed with -9.
controller() {
    daemon slurmctld
    holders slurmscriptd slurmctld.log
}

# job_processes [NODE]: ids of the slurmstepds and of everything that they started, on NODE or on all nodes.
# A slurmstepd is recognised by the slurmd log that it has open, a task by its environment: neither needs a living parent.
job_processes() {
    local file pid node=${1:-}
    holders slurmstepd "slurmd.${node:-*}.log"
    while IFS= read -r file; do
        pid=${file#/proc/}
        pid=${pid%/environ}
        grep -qszF -- "SLURMD_NODENAME=$node" "/proc/$pid/environ" || continue
        echo "$pid"
    done < <(grep -lszFx -- "SLURM_CONF=$conf" /proc/[0-9]*/environ)
}

# end SIGNAL SECONDS COMMAND...: signals what COMMAND lists, until it lists nothing; status 1 if something is left.
end() {
    local signal=$1 deadline=$((SECONDS + $2)) pids
    shift 2
    while mapfile -t pids < <("$@") && [[ ${#pids[@]} -gt 0 ]]; do
        [[ $SECONDS -lt $deadline ]] || return 1
        kill -s "$signal" "${pids[@]}" 2>/dev/null || true
        sleep 0.2
    done
}

# Daemons must hold neither the lock nor the pipe of a caller that reads up.sh's output.
start() { "$@" </dev/null >>"$folder/log/start.log" 2>&1 3>&- 9>&- || fail "$1 did not start; $folder/log/start.log ends: $(tail -n 3 "$folder/log/start.log")"; }

# SLURM 22.05 does not notice a node that dies and returns at once: a job that began seconds before would stay "running" for minutes.
start_node() {
    if [[ -n $(timeout 5 squeue --noheader --nodelist="$1" --states=running,completing 2>/dev/null) && -z $(job_processes "$1") ]]; then
        scontrol update NodeName="$1" State=DOWN Reason="came back without its jobs" || true
    fi
    start slurmd -N "$1" -f "$conf" -d "$folder/stepd"
}

port_of() {
    local i
    for i in "${!nodes[@]}"; do
        [[ ${nodes[i]} == "$1" ]] && echo $((port + 1 + i))
    done
}

require_free_port() {
    ! (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null ||
        fail "port $1, meant for $2, is taken by another program; choose six free ones in a row with SPARTA_DEVCLUSTER_PORT=<first>."
}
