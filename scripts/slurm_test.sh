#!/usr/bin/env bash
# A real Slurm on this one Debian machine: a cell split over jobs, one of them preempted by Slurm's
# signal and resumed; the rows must equal those of a plain run. For a throw-away machine or
# container: it needs root, installs packages and replaces /etc/slurm/slurm.conf.
#   make slurm-test        (or: PYTHON=.venv/bin/python scripts/slurm_test.sh)
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
[ "$(id -u)" = 0 ] || { echo "slurm_test.sh needs root, on a machine to throw away"; exit 1; }
[ ! -e /etc/slurm/slurm.conf ] || grep -q "written by slurm_test.sh" /etc/slurm/slurm.conf || {
    echo "/etc/slurm/slurm.conf is not this script's; nothing is touched"; exit 1; }

work=$(mktemp -d)
pids=()
finish() {
    status=$?
    [ $status = 0 ] || tail -n 5 "$work"/*.log || true
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for file in /run/slurmctld.pid /run/slurmd.pid /run/slurmdbd/slurmdbd.pid /run/munge/munged.pid; do
        [ ! -s $file ] || kill "$(cat $file)" 2>/dev/null || true
    done
    echo "files: $work"
    exit $status
}
trap finish EXIT

wait_for() {  # wait_for SECONDS COMMAND...
    local left=$1; shift
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1)); [ $left -gt 0 ] || { echo "gave up on: $*"; return 1; }; sleep 1
    done
}

# --- the cluster -------------------------------------------------------------------------------
command -v slurmctld >/dev/null && command -v mariadbd >/dev/null || \
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
        slurm-wlm munge slurmdbd mariadb-server >"$work/apt.log"
host=$(hostname -s)
mkdir -p /etc/slurm /run/munge /run/slurmdbd /run/mysqld /var/spool/slurmctld /var/spool/slurmd
chown munge: /run/munge; chown mysql: /run/mysqld; chown slurm: /var/spool/slurmctld /run/slurmdbd
touch /run/slurmctld.pid; chown slurm: /run/slurmctld.pid
cat >/etc/slurm/slurm.conf <<CONF
# written by slurm_test.sh
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmUser=slurm
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000
PartitionName=debug Nodes=ALL Default=YES State=UP
CONF
cat >/etc/slurm/slurmdbd.conf <<CONF
AuthType=auth/munge
DbdHost=localhost
SlurmUser=slurm
PidFile=/run/slurmdbd/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageUser=slurm
StorageLoc=slurm_acct_db
CONF
chown slurm: /etc/slurm/slurmdbd.conf; chmod 600 /etc/slurm/slurmdbd.conf
runuser -u munge -- munged --force
mariadbd --user=mysql >"$work/mariadb.log" 2>&1 & pids+=($!)
wait_for 60 mariadb -e "select 1"
mariadb -e "create database if not exists slurm_acct_db;
    create user if not exists slurm@localhost;
    grant all on slurm_acct_db.* to slurm@localhost"
slurmdbd -D >"$work/slurmdbd.log" 2>&1 & pids+=($!)
wait_for 60 sacctmgr -n show cluster
sacctmgr -i add cluster local >"$work/sacctmgr.log" 2>&1 || true
slurmctld -D >"$work/slurmctld.log" 2>&1 & pids+=($!)
slurmd -D >"$work/slurmd.log" 2>&1 & pids+=($!)
wait_for 60 sh -c "sinfo -h -o %t | grep -Eq 'idle|mix'"
sinfo --version; sinfo

# --- the campaign ------------------------------------------------------------------------------
export OMP_NUM_THREADS=1
cell=(outputs="$work/outputs" pass=backward population=id runs="${RUNS:-5000}" shard_size=100 threads=1)
slurm=(-m hydra/launcher=submitit_slurm hydra.launcher.partition=debug
    hydra.launcher.cpus_per_task=1 hydra.launcher.max_num_timeout=3 hydra.launcher.timeout_min=20)
shards() { find "$work/outputs/$1" -path '*_execution/part-*' 2>/dev/null | wc -l; }
enough() { [ "$(shards "$1")" -ge 5 ]; }
echo "--- plain run"
"$PYTHON" run.py "${cell[@]}" name=plain >"$work/plain.log" 2>&1
echo "--- the same cell as one Slurm job, preempted by Slurm's signal"
"$PYTHON" run.py "${slurm[@]}" "${cell[@]}" name=preempted >"$work/preempted.log" 2>&1 & sweep=$!
wait_for 300 enough preempted
job=$(squeue -h -t R -o %i | head -n 1)
scancel --signal=USR2 "$job"
wait_for 60 sh -c "squeue -h -t PD -o %i | grep -q ."
echo "job $job waits again, $(shards preempted) shards are there:"
squeue
wait_for 30 scontrol update job="$job" StartTime=now  # Slurm would let it wait two minutes
wait $sweep
echo "--- the same cell shared by two Slurm jobs"
"$PYTHON" run.py "${slurm[@]}" "${cell[@]}" name=shared part=1,2 >"$work/shared.log" 2>&1
echo "--- what became of the jobs"
sacct -D -X -n --format=JobID%12,State%12,Elapsed,ExitCode | tail -n 4
grep -h "is preempted\|REQUEUE" "$work"/outputs/*/.submitit/*/*.err || true
grep -h "runs executed" "$work"/outputs/{preempted,shared}/*/*/*/*/run.log | sed "s/.*flip.//"
for name in preempted shared; do
    "$PYTHON" -m progip status "$work/outputs/$name"
    "$PYTHON" scripts/same_rows.py "$work/outputs/plain" "$work/outputs/$name"
done
