#!/usr/bin/env bash
# Scores every checkpoint of a run: chooses the best on validation and tests it. One job array a split answers, for all tasks together. This
# small job waits for the arrays, prints tables and writes evals/summary.json into the run's state:
#   sbatch slurm/eval_all.sh [STATE] [any option of jobs/evaluate.py]
#   TASKS=gsm8k,medqa SPLIT=validation sbatch --partition=cpu slurm/eval_all.sh state/mine --select-on gsm8k
# Each variable stands for an argument:
#   STATE    the run's state directory; default: state/, or the one run in it
#   TASKS    the tasks to score on, separated by commas; own means data.validation and data.test. Default: evaluation.tasks of the recipe, else the
#            task that the run was trained on, else own
#   SPLIT    validation: stop once checkpoints are chosen; test: continue from there; default: both
#   PROFILE  the cluster: a file, or a name under slurm/profiles; default: the run's own
# All options of sbatch (--partition, --account, --time) go before the script's name. At its time limit it requeues itself and continues.
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
# A batch job runs a copy of this script (slurm_script) from a spool folder; the checkout is where it was submitted.
if [[ ${0##*/} == slurm_script ]]; then checkout=$SLURM_SUBMIT_DIR; else checkout=$(dirname "$0")/..; fi
[[ -f $checkout/slurm/driver.sh ]] || { echo "error: $checkout is not a checkout of this project: run sbatch in its top folder, or where sparta scripts put slurm/" >&2; exit 1; }
# shellcheck source=slurm/driver.sh
source "$checkout/slurm/driver.sh"

case ${SPLIT:-both} in validation | test | both) ;; *) fail "SPLIT=$SPLIT is not a split: give validation, test or both" ;; esac
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
