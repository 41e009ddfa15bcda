#!/usr/bin/env bash
# Starts the development cluster, or repairs it: eval "$(bash slurm/devcluster/up.sh)". See README.md beside this file.
set -euo pipefail
# Standard output has one line, the export at the end. Everything else goes to standard error.
exec 3>&1 1>&2
# Other users may submit jobs as well, so they must be able to read the configuration and munged's socket.
umask 022

# shellcheck source=slurm/devcluster/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

require_root
require_programs
require_sane_settings
lock create

write_slurm_conf() {
    cat <<CONF
# Written by slurm/devcluster/up.sh; changes are lost.
ClusterName=devcluster
SlurmctldHost=localhost
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
# Ids continue from one cluster to the next, so that nobody takes a new job for an old one.
FirstJobId=$first_job
AuthType=auth/munge
# cred_expire is also how long a requeued job waits before it may start again: 120 s by default.
AuthInfo=socket=$socket,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/run/slurmctld.pid
SlurmdPidFile=$folder/run/slurmd.%n.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.%n.log
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
# This cluster runs jobs as root, so nobody outside of this machine may reach it.
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SwitchType=switch/none
PropagateResourceLimits=NONE

SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
DefMemPerCPU=500
# Tiny on purpose: larger arrays must be split.
MaxArraySize=21

JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout=10
MessageTimeout=5
KillWait=3
MinJobAge=15
InactiveLimit=0
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=10000,bf_interval=1

NodeName=node[1-4] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[$((port + 1))-$((port + 4))] CPUs=16 RealMemory=64000 Gres=gpu:a100:4
NodeName=cpu1 NodeHostname=localhost NodeAddr=127.0.0.1 Port=$((port + 5)) CPUs=16 RealMemory=64000
PartitionName=gpu Nodes=node[1-4] Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
PartitionName=gpu-grace Nodes=node[1-4] PriorityTier=1 PreemptMode=REQUEUE GraceTime=8
PartitionName=cpu Nodes=cpu1
PartitionName=urgent Nodes=node[1-4] PriorityTier=10 PreemptMode=OFF
CONF
}

# Without cgroups, slurmstepd finds a task's processes by their parents, and loses those whose parent is gone. As a subreaper
# (prctl 36, kept across exec) it becomes their parent and ends them with the step, as a cluster with cgroups does.
write_stepd() {
    cat <<PERL
#!$(command -v perl)
use POSIX ();
my %prctl = (x86_64 => 157, aarch64 => 167);
my \$number = \$prctl{(POSIX::uname())[4]};
syscall(\$number, 36, 1, 0, 0, 0) if \$number;
exec "$(command -v slurmstepd)", @ARGV;
PERL
}

write_folder() {
    local gpu
    : >"$marker"
    mkdir -p "$folder"/{dev,log,munge,run,spool,state}
    for gpu in 0 1 2 3; do
        # SLURM requires a character device; the null device is harmless.
        [[ -c $folder/dev/gpu$gpu ]] || mknod -m 0666 "$folder/dev/gpu$gpu" c 1 3 ||
            fail "no device files can be made below $folder (a container without CAP_MKNOD?)."
    done
    [[ -s $folder/munge/key ]] || (umask 077 && head -c 128 /dev/urandom >"$folder/munge/key")
    echo "NodeName=node[1-4] Name=gpu Type=a100 Flags=nvidia_gpu_env File=$folder/dev/gpu[0-3]" >"$folder/gres.conf"
    write_stepd >"$folder/stepd"
    chmod 0755 "$folder/stepd"
    write_slurm_conf >"$conf"
}

states() { sinfo --noheader --Node --Format='NodeList:20,StateLong:30' 2>/dev/null | sort -u; }

# All five nodes answer and would accept a job, now or when the running ones end.
ready() { [[ $(states | grep -cE '^[a-z0-9]+ +(idle|mixed|allocated|completing) *$') -eq ${#nodes[@]} ]]; }

controller_answers() { timeout 10 scontrol ping 2>/dev/null | grep -q ' is UP'; }

export SLURM_CONF=$conf
first_job=$(($(date +%s) % 60000000))
started=()

if [[ -s $conf && -n $(daemon slurmctld)$(daemon slurmd) ]]; then
    port=$(sed -n 's/^SlurmctldPort=//p' "$conf")
    first_job=$(sed -n 's/^FirstJobId=//p' "$conf")
    cmp -s <(write_slurm_conf) "$conf" || say "runs with another configuration than this version's: down.sh, then up.sh renews it."
else
    # Tasks may have outlived all daemons, and a restarted controller runs their jobs again.
    end KILL 10 job_processes || fail "processes of earlier jobs cannot be ended: $(job_processes '' | tr '\n' ' ')"
    require_free_port "$port" slurmctld
    for node in "${nodes[@]}"; do require_free_port "$(port_of "$node")" "$node"; done
    write_folder
fi

if ! timeout 10 munge --no-input --socket="$socket" >/dev/null 2>&1; then
    end KILL 5 daemon munged || fail "a munged that does not answer cannot be ended."
    rm -f "$socket" "$socket.lock"
    start munged --key-file="$folder/munge/key" --socket="$socket" --pid-file="$folder/run/munged.pid" \
        --log-file="$folder/log/munged.log" --seed-file="$folder/munge/seed"
    started+=(munged)
fi

if ! { [[ -n $(daemon slurmctld) ]] && controller_answers; }; then
    end KILL 5 controller || fail "a slurmctld that does not answer cannot be ended."
    require_free_port "$port" slurmctld
    start slurmctld -f "$conf"
    started+=(slurmctld)
fi

for node in "${nodes[@]}"; do
    if [[ -z $(daemon slurmd "$node") ]]; then
        require_free_port "$(port_of "$node")" "$node"
        start_node "$node"
        started+=("$node")
    fi
done

deadline=$((SECONDS + 60))
until controller_answers && ready; do
    [[ $SECONDS -lt $deadline ]] || fail "after 60 s not all nodes are idle: $(states | tr -s ' \n' ' ')
the end of $folder/log/slurmctld.log:
$(tail -n 15 "$folder/log/slurmctld.log" 2>/dev/null)"
    while read -r node state; do
        [[ $state =~ ^(down|drain) ]] || continue
        [[ ${started[*]} == *"$node"* ]] || started+=("$node")
        scontrol update NodeName="$node" State=RESUME 2>/dev/null || true
    done < <(states)
    sleep 0.2
done

if [[ ${#started[@]} -eq 0 ]]; then
    say "already up in $folder, ports $port to $((port + 5))."
else
    say "up in $folder, ports $port to $((port + 5)); started or repaired: ${started[*]}."
fi
echo "export SLURM_CONF=$conf" >&3
