#!/usr/bin/env bash
# Submit the runs of a table to slurm: tools/slurm_reproduce.sh PARTITION TABLE [arguments of tools/reproduce.py].
# Skips what is done or queued; a run waits for the one that it needs. A run gets the GPUs that its
# batch asks for, or --gpus N. May be set: GPUS_PER_NODE (8), CPUS_PER_TASK (5), and what sbatch
# reads, such as SBATCH_ACCOUNT and SBATCH_TIMELIMIT.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "error: usage: $0 PARTITION TABLE [arguments of tools/reproduce.py]" >&2
    exit 2
fi
partition=$1
shift
plan=$(python -m mmparc reproduce "$@" --plan)
declare -A ids
while IFS=$'\t' read -r name after gpus work_dir arguments; do
    [ -n "$name" ] || continue
    id=$(squeue --me --noheader --format=%i --name="$name")
    if [ -n "$id" ]; then
        echo "$name: queued already, job $id"
    else
        per_node=$((gpus < ${GPUS_PER_NODE:-8} ? gpus : ${GPUS_PER_NODE:-8}))
        wait=()
        if [ -n "${ids[$after]:-}" ]; then
            wait=("--dependency=afterok:${ids[$after]}" --kill-on-invalid-dep=yes)
        fi
        mkdir -p "$work_dir"
        # Jobs that share a machine need ports of their own: the job's number gives one.
        id=$(sbatch --parsable --partition="$partition" --job-name="$name" "${wait[@]}" \
            --gres="gpu:$per_node" --ntasks="$gpus" --ntasks-per-node="$per_node" \
            --cpus-per-task="${CPUS_PER_TASK:-5}" --output="$work_dir/stdout.txt" \
            --open-mode=append --wrap="export MASTER_PORT=\$((20000 + SLURM_JOB_ID % 20000))
srun --kill-on-bad-exit=1 python -u -m mmparc train --launcher slurm $arguments")
        id=${id%%;*} # the cluster follows
        echo "$name: submitted, job $id"
    fi
    ids[$name]=$id
done <<< "$plan"
