#!/usr/bin/env bash
# Breaks and repairs one node of the development cluster, for fault tests: node.sh stop|cut|start NODE
set -euo pipefail

# shellcheck source=slurm/devcluster/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[[ $# -eq 2 && " ${nodes[*]} " == *" $2 "* ]] || fail "usage: node.sh stop|cut|start NODE, where NODE is one of: ${nodes[*]}."
require_root
require_programs
require_sane_settings
[[ -s $conf ]] || fail "is down: there is no $conf; start it with slurm/devcluster/up.sh."
node=$2
port=$(sed -n 's/^SlurmctldPort=//p' "$conf")
export SLURM_CONF=$conf
lock existing || fail "was just taken down."

case $1 in
stop) # a power cut: slurmd and everything on the node is killed
    end KILL 10 daemon slurmd "$node" || fail "$node's slurmd cannot be ended."
    end KILL 10 job_processes "$node" || fail "$node's jobs cannot be ended."
    say "$node is dead, its jobs as well; SLURM notices in about 20 s and requeues them."
    ;;
cut) # a network cut: SLURM loses the node, but its jobs continue
    end KILL 10 daemon slurmd "$node" || fail "$node's slurmd cannot be ended."
    say "$node no longer answers, its jobs run on; SLURM notices in about 20 s and starts them a second time elsewhere."
    ;;
start)
    if [[ -n $(daemon slurmd "$node") ]]; then
        say "$node runs already."
    else
        require_free_port "$(port_of "$node")" "$node"
        start_node "$node"
        say "$node is back."
    fi
    ;;
*) fail "usage: node.sh stop|cut|start NODE" ;;
esac
