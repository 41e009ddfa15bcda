#!/usr/bin/env bash
# A whole run as one job on one node, with one local process for each GPU:
#   sbatch slurm/one_node.sh --iters 8 [any option of jobs/launch.py]
# Options of sbatch (--partition, --account, --time) go before the script's name. At its time limit the job ends its tasks, requeues itself
# and continues where it stopped. Without SLURM: bash slurm/one_node.sh ...
#SBATCH --job-name=sparta
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=sparta-%j.log
set -euo pipefail
# A batch job runs a copy of this script (slurm_script) from a spool folder; the checkout is where it was submitted.
if [[ ${0##*/} == slurm_script ]]; then checkout=$SLURM_SUBMIT_DIR; else checkout=$(dirname "$0")/..; fi
[[ -f $checkout/slurm/driver.sh ]] || { echo "error: $checkout is not a checkout of this project: run sbatch in its top folder, or where sparta scripts put slurm/" >&2; exit 1; }
# shellcheck source=slurm/driver.sh
source "$checkout/slurm/driver.sh"
drive launch --cluster local "$@"
