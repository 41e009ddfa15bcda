# What launch.sh, init_pool.sh, eval_all.sh and one_node.sh share: a command as a batch job that outlives its time limit. Sourced, never run,
# by a script that has set `checkout`: the folder that holds slurm/ and, unless the package is installed, jobs/ and sparta/.
# shellcheck shell=bash

fail() {
    echo "error: $*" >&2
    exit 1
}

# SLURM runs a copy of a batch script that is called slurm_script. A script that a person starts, even in an allocation, has its own name.
is_job() { [[ ${0##*/} == slurm_script ]]; }

checkout=$(cd "$checkout" && pwd)
if [[ -x $checkout/.venv/bin/python ]]; then PATH=$checkout/.venv/bin:$PATH; fi
command -v python >/dev/null ||
    fail "there is no python: run make setup in $checkout, or activate the environment before sbatch (conda activate sparta)"

# drive COMMAND [ARGUMENT]...: runs jobs/COMMAND.py of the checkout or, without one, sparta COMMAND of the installed package. In a job, SLURM's
# signal (time limit, preemption) stops the command and requeues the job. Started again, the same command continues. Array tasks are not
# affected.
drive() {
    local command=(python "$checkout/jobs/$1.py") signals=0 before status asked=nothing
    if [[ ! -f $checkout/jobs/$1.py ]]; then
        command -v sparta >/dev/null ||
            fail "there is neither jobs/$1.py in $checkout nor the command sparta: activate the environment with sparta before sbatch"
        command=(sparta "${1//_/-}")
    fi
    shift
    is_job || exec "${command[@]}" "$@"
    # Tells the lock that this job exists for the driver alone and may be ended with it. SLURM_JOB_ID cannot tell: every job has one.
    export SPARTA_DRIVER_JOB=$SLURM_JOB_ID
    trap 'signals=$((signals + 1)) asked=requeue; kill -TERM "${driver:-}" 2>/dev/null || true' USR1
    # scancel signals every process of the job, the driver too. A second signal would interrupt its clean exit.
    trap 'signals=$((signals + 1)) asked=end' TERM
    require_time
    "${command[@]}" "$@" &
    driver=$!
    # A signal may have come before the driver started.
    if [[ $signals -gt 0 ]]; then kill -TERM "$driver" 2>/dev/null || true; fi
    # A signal ends `wait` before the driver has ended, so wait again.
    until
        before=$signals status=0
        wait "$driver" || status=$?
        [[ $signals -eq $before ]]
    do :; done
    # 130 and 143 mean interrupted. With any other status the command ended by itself, and the job is not requeued.
    if [[ $asked == requeue && ($status -eq 130 || $status -eq 143) ]]; then
        echo "The driver was stopped; this job goes back into the queue and continues when SLURM starts it again."
        # SLURM_CLUSTERS says where to submit jobs; a command about this job must not use it.
        env -u SLURM_CLUSTERS scontrol requeue "$SLURM_JOB_ID" || fail "job $SLURM_JOB_ID cannot be requeued: submit the same command again, it continues"
        status=0
    fi
    exit "$status"
}

# The signal comes two to three minutes before the time limit, so a shorter job would be requeued for ever.
require_time() {
    local limit
    limit=$(env -u SLURM_CLUSTERS squeue --noheader --jobs="$SLURM_JOB_ID" --format=%l) || return 0
    [[ ! $limit =~ ^[0-3]:[0-9]+$ ]] ||
        fail "a time limit of $limit minutes leaves no time before the signal to stop: give sbatch --time hours:minutes:seconds"
}
