# What launch.sh, init_pool.sh, eval_all.sh and one_node.sh share: a command of jobs/ as a batch job that outlives its time limit. Sourced,
# never run, by a script that has set `checkout`.
# shellcheck shell=bash

fail() {
    echo "error: $*" >&2
    exit 1
}

# SLURM calls its copy of a batch script slurm_script. Started by hand, be it inside an allocation, a script has its own name.
is_job() { [[ ${0##*/} == slurm_script ]]; }

checkout=$(cd "$checkout" && pwd)
if [[ -x $checkout/.venv/bin/python ]]; then PATH=$checkout/.venv/bin:$PATH; fi
command -v python >/dev/null ||
    fail "there is no python: run make setup in $checkout, or activate the environment before sbatch (conda activate sparta)"

# drive COMMAND [ARGUMENT]...: jobs/COMMAND.py. In a job it is stopped when SLURM's signal comes (time limit, preemption), and the job
# goes back into the queue: started again, the same command goes on. Tasks of arrays notice nothing of it.
drive() {
    local command=$checkout/jobs/$1.py signals=0 before status asked=nothing
    shift
    is_job || exec python "$command" "$@"
    # By this the lock knows that the job is there for the driver alone and may be ended with it; any job has a SLURM_JOB_ID.
    export SPARTA_DRIVER_JOB=$SLURM_JOB_ID
    trap 'signals=$((signals + 1)) asked=requeue; kill -TERM "${driver:-}" 2>/dev/null || true' USR1
    # scancel tells every process of the job, the driver too: told twice, it would break off its leave-taking.
    trap 'signals=$((signals + 1)) asked=end' TERM
    require_time
    python "$command" "$@" &
    driver=$!
    # It may have come already.
    if [[ $signals -gt 0 ]]; then kill -TERM "$driver" 2>/dev/null || true; fi
    # A signal ends `wait` before the driver has ended.
    until
        before=$signals status=0
        wait "$driver" || status=$?
        [[ $signals -eq $before ]]
    do :; done
    # 130 and 143: interrupted. Another status is an end of its own, whatever was asked in the meantime.
    if [[ $asked == requeue && ($status -eq 130 || $status -eq 143) ]]; then
        echo "The driver was told to stop; this job goes back into the queue and goes on when SLURM starts it again."
        # A choice of clusters for what is submitted is none for what is asked about this very job.
        env -u SLURM_CLUSTERS scontrol requeue "$SLURM_JOB_ID" || fail "job $SLURM_JOB_ID cannot be requeued: submit the same command again, it goes on"
        status=0
    fi
    exit "$status"
}

# The signal comes two minutes before the time limit, and up to a minute earlier: a shorter job would be requeued for ever.
require_time() {
    local limit
    limit=$(env -u SLURM_CLUSTERS squeue --noheader --jobs="$SLURM_JOB_ID" --format=%l) || return 0
    [[ ! $limit =~ ^[0-3]:[0-9]+$ ]] ||
        fail "a time limit of $limit minutes leaves nothing before the signal to stop: give sbatch --time hours:minutes:seconds"
}
