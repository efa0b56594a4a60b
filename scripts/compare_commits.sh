#!/usr/bin/env bash
# Whether this working tree writes the same rows as COMMIT, on every kind of campaign:
#   scripts/compare_commits.sh COMMIT [--allow COLUMN] [--added COLUMN]
# The demo's network: both detectors, all passes; a rate; a plan; correcting protections.
set -euo pipefail
cd "$(dirname "$0")/.."
commit=$1
shift
work=$(mktemp -d)
trap 'git worktree remove --force "$work/code"; rm -rf "$work"' EXIT
git worktree add --quiet --detach "$work/code" "$commit"
python=$PWD/.venv/bin/python

campaigns() { # CODE OUT
    export PYTHONPATH=$1/src PROGIP_CACHE=$2/cache OMP_NUM_THREADS=1 PROJECT_ROOT=$1
    local run="$python run.py -m outputs=$2/out batch_size=16 shard_size=100"
    (
        cd "$1"
        $run name=demo runs=250 ood_method=odin,mahalanobis protection=none,progip,ranger
        $run name=rate runs=60 fault_model=one_bit fault_model.rate=1e-4 population=id pass=first_forward,backward
        $run name=planned runs=400 sampling=stratified sampling.pilot=100 population=id pass=first_forward
        $run name=likely runs=200 sampling=importance 'sampling.bit_odds={30:5}' population=ood pass=second_forward
        $run name=corrected runs=150 protection=ranger_clip,gradient_statistics population=id pass=first_forward
        $run name=network runs=200 ood_method=none ood_dataset=none population=id pass=first_forward protection=none
    ) > "$2.log" 2>&1 || { tail -20 "$2.log"; exit 1; }
}

campaigns "$work/code" "$work/before"
campaigns "$PWD" "$work/after"
"$python" scripts/same_rows.py "$work/before/out" "$work/after/out" "$@"
