#!/usr/bin/env bash
# End the development cluster: its jobs, its daemons, its folder.
set -euo pipefail

# shellcheck source=slurm/devcluster/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

require_root
require_programs
require_sane_settings

everything() {
    controller
    daemon slurmd
    daemon munged
    job_processes ''
}

if ! lock existing; then
    [[ -z $(everything) ]] || { end KILL 10 everything || fail "these processes cannot be ended: $(everything | tr '\n' ' ')"; }
    say "is down: there is no $folder."
    exit 0
fi

export SLURM_CONF=$conf
if [[ -n $(daemon slurmctld) ]]; then
    # Cancelled jobs may still clean up. The daemons end only when no job is left, or after KillWait and a margin.
    mapfile -t jobs < <(timeout 10 squeue --noheader --format=%A 2>/dev/null | sort -u)
    if [[ ${#jobs[@]} -gt 0 ]]; then
        say "cancelling ${#jobs[@]} jobs."
        timeout 10 scancel "${jobs[@]}" 2>/dev/null || true
    fi
    deadline=$((SECONDS + 8))
    while [[ $SECONDS -lt $deadline && -n $(timeout 5 squeue --noheader --format=%A --states=running,suspended,completing 2>/dev/null) ]]; do
        sleep 0.2
    done
fi

end TERM 10 daemon slurmctld || true
end TERM 10 daemon slurmd || true
end TERM 5 daemon munged || true
end KILL 10 everything || fail "these processes cannot be ended: $(everything | tr '\n' ' ')"

# The marker goes last, so that an interrupted removal can be repeated.
find "$folder" -mindepth 1 ! -path "$marker" -delete
rm -f "$marker"
rmdir "$folder"
say "down; $folder is removed."
