#!/usr/bin/env bash
# Makes the initial pool of a run: an array with one task for each expert that is trained from data. This small job waits for it and prints where
# the adapters are. sbatch slurm/launch.sh makes the pool, too, and continues with the iterations:
#   RECIPE=mine.yaml STATE=state/mine sbatch slurm/init_pool.sh [any option of jobs/init_pool.py]
# Each variable stands for an argument:
#   RECIPE   a file, or a name under sparta/recipes; not needed if the run has begun
#   STATE    the run's state directory; default: state/
#   PROFILE  the cluster: a file, or a name under slurm/profiles
# All options of sbatch (--partition, --account, --time) go before the script's name. At its time limit it requeues itself and continues.
# Without SLURM, on this machine: bash slurm/init_pool.sh
#SBATCH --job-name=sparta-pool
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=sparta-pool-%j.log
set -euo pipefail
# A batch job runs a copy of this script (slurm_script) from a spool folder; the checkout is where it was submitted.
if [[ ${0##*/} == slurm_script ]]; then checkout=$SLURM_SUBMIT_DIR; else checkout=$(dirname "$0")/..; fi
[[ -f $checkout/slurm/driver.sh ]] || { echo "error: $checkout is not a checkout of this project: run sbatch in its top folder, or where sparta scripts put slurm/" >&2; exit 1; }
# shellcheck source=slurm/driver.sh
source "$checkout/slurm/driver.sh"

cluster=auto
if is_job; then cluster=slurm; fi
drive init_pool --cluster "$cluster" ${RECIPE:+--recipe "$RECIPE"} ${STATE:+--state "$STATE"} ${PROFILE:+--profile "$PROFILE"} "$@"
