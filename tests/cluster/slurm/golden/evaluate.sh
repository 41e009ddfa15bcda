#!/bin/bash

# Parameters
#SBATCH --array=0-15%16
#SBATCH --chdir=/cluster/home/state/jobs/code/CODE
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=a100:1
#SBATCH --job-name=sparta-0123456789ab-evals-validation-a0
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mem=64G
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/cluster/home/state/jobs/evals/validation/logs/%A_%a_0_log.out
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=120

# setup
export PYTHONPATH=/cluster/home/state/jobs/code/CODE"${PYTHONPATH:+:$PYTHONPATH}"

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /cluster/home/state/jobs/evals/validation/logs/%A_%a_%t_log.out --cpus-per-task=8 PYTHON -u -m submitit.core._submit /cluster/home/state/jobs/evals/validation/logs
