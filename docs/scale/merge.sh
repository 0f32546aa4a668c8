#!/bin/bash
# Merges the trees of an array into one and reports on it: merge.sh RESULTS MERGED
set -euo pipefail

results=$1
merged=$2

# Before anything is copied: is every record whole, and does any contradict another one of its cell?
prunebench verify "$results"/shard-*
mkdir -p "$merged"
for shard in "$results"/shard-*; do
  cp -a "$shard"/*/ "$merged"/
done
prunebench verify "$merged"
prunebench report "$merged" --out "$merged/report.html"
