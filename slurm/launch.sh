#!/usr/bin/env bash
# The driver of a run as a small job, for clusters whose login nodes forbid long processes. It submits the arrays and watches them:
#   sbatch slurm/launch.sh --iters 8 [any option of jobs/launch.py]
# Options of sbatch (--partition, --account, --time) go before the script's name. At its time limit it requeues itself and continues.
# scancel ends only the driver; python jobs/launch.py --cancel ends the run's other jobs, too.
#SBATCH --job-name=sparta-driver
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=sparta-driver-%j.log
set -euo pipefail
# A batch job runs a copy of this script (slurm_script) from a spool folder; the checkout is where it was submitted.
if [[ ${0##*/} == slurm_script ]]; then checkout=$SLURM_SUBMIT_DIR; else checkout=$(dirname "$0")/..; fi
[[ -f $checkout/slurm/driver.sh ]] || { echo "error: $checkout is not a checkout of this project: run sbatch in its top folder, or where sparta scripts put slurm/" >&2; exit 1; }
# shellcheck source=slurm/driver.sh
source "$checkout/slurm/driver.sh"
drive launch --cluster slurm "$@"
