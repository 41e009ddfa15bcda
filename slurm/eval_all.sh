#!/usr/bin/env bash
# Every checkpoint of a run on its tasks: the best on validation, chosen there, and its score on test. Job arrays answer, one a split for
# all tasks together; this small job waits for them, prints tables and leaves evals/summary.json in the run's state:
#   sbatch slurm/eval_all.sh [STATE] [any option of jobs/evaluate.py]
#   TASKS=gsm8k,medqa SPLIT=validation sbatch --partition=cpu slurm/eval_all.sh state/mine --select-on gsm8k
# Variables, each for what could be said by an argument:
#   STATE    the run's state directory; else state/ or the one run in it
#   TASKS    what to score on, names with commas between, own for data.validation and data.test; else evaluation.tasks of the recipe, or the
#            task that the run was trained on, or own
#   SPLIT    validation: stop at the choice; test: go on from there; else both
#   PROFILE  the cluster, where not the run's own: a file, or a name under slurm/profiles
# All options of sbatch (--partition, --account, --time) go before the script's name. At its time limit it requeues itself and goes on.
# Without SLURM, on this machine: bash slurm/eval_all.sh [STATE]
#SBATCH --job-name=sparta-eval
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=sparta-eval-%j.log
set -euo pipefail
# A batch job runs a copy of this script, slurm_script, from a spool folder: the checkout is where it was submitted.
if [[ ${0##*/} == slurm_script ]]; then checkout=$SLURM_SUBMIT_DIR; else checkout=$(dirname "$0")/..; fi
[[ -f $checkout/slurm/driver.sh ]] || { echo "error: $checkout is no checkout of this project: run sbatch in its top folder, or where sparta scripts put slurm/" >&2; exit 1; }
# shellcheck source=slurm/driver.sh
source "$checkout/slurm/driver.sh"

case ${SPLIT:-both} in validation | test | both) ;; *) fail "SPLIT=$SPLIT is no split to stop at: give validation, test or both" ;; esac
state=${STATE:-state}
if [[ $# -gt 0 && $1 != -* ]]; then
    state=$1
    shift
else
    # The option comes before the variable; the command itself looks at what it names.
    for argument in "$@"; do
        case $argument in --state | --state=*) state= ;; esac
    done
fi
if [[ -n $state && ! -f $state/run.json ]]; then
    shopt -s nullglob
    found=("$state"/*/run.json)
    runs=("${found[@]%/run.json}")
    case ${#runs[@]} in
    0) fail "$state holds no run (no run.json): name its state directory, as in sbatch slurm/eval_all.sh state/mine" ;;
    1) state=${runs[0]} ;;
    *) fail "$state holds ${#runs[@]} runs: name one of them, ${runs[*]}" ;;
    esac
fi
cluster=auto
if is_job; then cluster=slurm; fi
drive evaluate ${state:+"$state"} --all --cluster "$cluster" ${TASKS:+--tasks "$TASKS"} ${SPLIT:+--split "$SPLIT"} ${PROFILE:+--profile "$PROFILE"} "$@"
