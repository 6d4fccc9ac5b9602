#!/usr/bin/env bash
# A sweep as a Slurm job, from the clone's root, which all nodes must see:
#
#   sbatch cluster/slurm.sh run search_spaces/lenet_mnist.yaml --storage /shared/tickets
#
# Shortly before its time is up, the job stops the sweep and queues itself again: the same line
# goes on with what is missing. What sbatch is given on its own line takes the place of these.
#SBATCH --job-name=ticketsweep
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@300

set -euo pipefail
if [ $# -eq 0 ]; then
    echo "usage: sbatch cluster/slurm.sh run SPACE.yaml --storage FOLDER" >&2
    exit 2
fi
cd "${SLURM_SUBMIT_DIR:?submit this with sbatch}"
bin=$PWD/.venv/bin

# The job's own password, in a file that only its owner can read, gone with the job: other users of
# the network can do nothing with this Ray. A path, since an environment may be shown by Slurm.
umask 077
token=$PWD/.ray-token-$SLURM_JOB_ID
"$bin/python" -c 'import secrets; print(secrets.token_hex(32))' > "$token"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token
export RAY_ENABLE_UV_RUN_RUNTIME_ENV=0
export RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1  # a trial without a share of a GPU sees none

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
# Jobs that share a node must not share ports or folders.
port=$((20000 + SLURM_JOB_ID % 5000 * 2))
local_folder=/tmp/ts-$SLURM_JOB_ID
started=(--num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}"
    --dashboard-agent-listen-port=$((port + 1)) --disable-usage-stats --block)

# Each step ends with the job, and only its own Ray with it: `ray stop` would end those of the
# user's other jobs on the node, too.
steps=()
again=false
finish() {
    trap - EXIT
    kill "${steps[@]}" 2> /dev/null || true
    wait "${steps[@]}" 2> /dev/null || true
    rm -rf "$token" "$local_folder"
}
trap finish EXIT

# --overlap: the driver, in this script, uses the same processors as the head's Ray.
# A step does not take the job's --cpus-per-task over by itself.
srun --overlap --nodes=1 --ntasks=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" --nodelist="$head" \
    "$bin/ray" start --head --port="$port" --temp-dir="$local_folder" \
    --include-dashboard=false "${started[@]}" &
steps+=($!)
for _ in $(seq 120); do
    if (: < "/dev/tcp/$head/$port") 2> /dev/null; then break; fi
    sleep 1
done
if [ ${#nodes[@]} -gt 1 ]; then
    srun --overlap --nodes=$((${#nodes[@]} - 1)) --ntasks=$((${#nodes[@]} - 1)) --exclude="$head" \
        --cpus-per-task="$SLURM_CPUS_PER_TASK" \
        "$bin/ray" start --address="$head:$port" "${started[@]}" &
    steps+=($!)
fi

# In the background, since bash hears a signal only once what it waits for has ended.
"$bin/ticketsweep" "$@" --address "$head:$port" &
driver=$!
trap 'again=true; kill -TERM "$driver"' USR1
trap 'kill -TERM "$driver"' TERM INT
status=0
wait "$driver" || status=$?
while kill -0 "$driver" 2> /dev/null; do  # a signal has ended the wait, not the driver
    status=0
    wait "$driver" || status=$?
done
if $again; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
