#!/usr/bin/env bash
# A whole run as one job on one node, its GPUs shared out to local processes:
#   sbatch slurm/one_node.sh --iters 8 [any option of jobs/launch.py]
# Submitted again after a time limit it goes on where it stopped (leave --resume out then: it goes back again). Without SLURM: bash slurm/one_node.sh ...
#SBATCH --job-name=sparta
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=B:INT@120
#SBATCH --output=sparta-%j.log
set -euo pipefail
# A batch job runs a copy of this script from a spool folder: the checkout is where it was submitted.
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
[ -x .venv/bin/python ] && PATH="$PWD/.venv/bin:$PATH"
exec python jobs/launch.py --cluster local "$@"
