#!/usr/bin/env bash
# The driver of a study as a small job, for clusters whose login nodes forbid long processes. It starts the cells, which submit their arrays:
#   sbatch slurm/study.sh STUDY [any option of jobs/study.py]
# Options of sbatch (--partition, --account, --time) go before the script's name. At its time limit it requeues itself and continues.
# scancel ends only the driver and its cells; python jobs/study.py STUDY --cancel ends their other jobs, too. jobs/study.py STUDY --detach submits this.
#SBATCH --job-name=sparta-study
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=sparta-study-%j.log
set -euo pipefail
# A batch job runs a copy of this script (slurm_script) from a spool folder; the checkout is where it was submitted.
if [[ ${0##*/} == slurm_script ]]; then checkout=$SLURM_SUBMIT_DIR; else checkout=$(dirname "$0")/..; fi
[[ -f $checkout/slurm/driver.sh ]] || { echo "error: $checkout is not a checkout of this project: run sbatch in its top folder, or where sparta scripts put slurm/" >&2; exit 1; }
# shellcheck source=slurm/driver.sh
source "$checkout/slurm/driver.sh"
drive study --cluster slurm "$@"
