#!/usr/bin/env bash
# A Slurm of one node on this machine, as root and without systemd, from Debian's packages:
#   apt-get install --no-install-recommends munge slurmctld slurmd slurm-client
#   tests/engines/slurm.sh start DIR && source DIR/env
#   tests/engines/slurm.sh stop DIR
# DIR holds its configuration, state and logs; `env` sets SLURM_CONF, and PATH with a `sacct` (sacct.sh) that asks the
# controller, since accounting would need a data base.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
action=${1:-} dir=${2:-}
[[ $action =~ ^(start|stop)$ && -n $dir ]] || { echo "usage: $0 start|stop DIR" >&2; exit 2; }

stop() {
  local name
  for name in slurmd slurmctld munged; do
    [[ -s $dir/$name.pid ]] && kill "$(cat "$dir/$name.pid")" 2>/dev/null || true
  done
}

start() {
  mkdir -p "$dir"/{state,spool,bin}
  dir=$(cd "$dir" && pwd)
  ln -sf "$here/sacct.sh" "$dir/bin/sacct"
  dd if=/dev/urandom of="$dir/munge.key" bs=128 count=1 status=none
  chmod 400 "$dir/munge.key"
  cat > "$dir/slurm.conf" <<CONF
ClusterName=loopback
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=${SLURM_PORT:-16817}
SlurmdPort=$((${SLURM_PORT:-16817} + 1))
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
KillWait=30
MinJobAge=86400
SlurmdParameters=config_overrides
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=${SLURM_CPUS:-2} State=UNKNOWN
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
  printf 'export SLURM_CONF=%q PATH=%q:"$PATH"\n' "$dir/slurm.conf" "$dir/bin" > "$dir/env"
  source "$dir/env"
  munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
    --log-file="$dir/munged.log" --seed-file="$dir/munged.seed" 2> /dev/null
  slurmctld -c -f "$SLURM_CONF"
  slurmd -f "$SLURM_CONF"
  for _ in $(seq 120); do
    [[ $(sinfo -h -o %T 2>/dev/null) == idle ]] && return
    sleep 1
  done
  echo "$0: the node did not come up in two minutes; see $dir/slurmctld.log and $dir/slurmd.log" >&2
  stop
  exit 1
}

"$action"
