#!/usr/bin/env bash
# Runs a suite and compares its records with a baseline: prunebench's regression check for any CI.
#
#   gate.sh [SUITE] [BASELINE_DIR] [CANDIDATE_DIR]            run, compare, summarize
#   gate.sh --accept [SUITE] [BASELINE_DIR] [CANDIDATE_DIR]   make the last run the new baseline; runs nothing
#
#   SUITE          a built-in suite or a suite file     default: regression
#   BASELINE_DIR   records to compare with              default: prunebench/baseline
#   CANDIDATE_DIR  records, report and summaries        default: prunebench/candidate
#
#   GATE_TOLERANCES  a TOML file of tolerances          default: the built-in ones
#   GATE_DEVICE      cpu, cuda, ...                     default: auto
#   GATE_EXISTING    skip resumes an interrupted run    default: rerun, as the method may have changed
#
# CANDIDATE_DIR gets the records, report.html, gate.md (for people) and gate.xml (JUnit, for CI systems).
# Exit codes: 0 no regression; 1 a regression, or a cell that newly fails; 2 the input is wrong;
# 3 nothing got worse, but not everything could be compared, or there is no baseline yet.
#
# Needs `prunebench` on PATH and bash 3.2 or newer; a plain sh cannot run it.
set -euo pipefail

accept=false
case "${1:-}" in
  --accept) accept=true; shift ;;
  -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; exit 0 ;;
  -*) echo "gate.sh: unknown option $1 (gate.sh --help)" >&2; exit 2 ;;
esac
if [ "$#" -gt 3 ]; then
  echo "gate.sh: too many arguments (gate.sh --help)" >&2
  exit 2
fi
suite=${1:-regression}
baseline=${2:-prunebench/baseline}
candidate=${3:-prunebench/candidate}

if [ "$accept" = true ]; then
  # Not report.html: a run writes that before its first cell, and an interrupted run is no baseline.
  if [ ! -f "$candidate/run.finished" ]; then
    echo "gate.sh: $candidate holds no finished run: run $0 $suite $baseline $candidate first" >&2
    exit 2
  fi
  exec prunebench gate "$baseline" "$candidate" --update
fi

# Files of an earlier run must not be taken for this one's.
rm -f "$candidate/run.finished" "$candidate/report.html" "$candidate/gate.md" "$candidate/gate.xml"

# With a failed cell the run exits with 3; the cell has a record of the failure, which the gate judges.
code=0
prunebench run "$suite" --out "$candidate" --existing "${GATE_EXISTING:-rerun}" \
  --device "${GATE_DEVICE:-auto}" || code=$?
if [ "$code" -ne 0 ] && [ "$code" -ne 3 ]; then
  exit "$code"
fi
if [ "$code" -eq 3 ] && [ ! -f "$candidate/report.html" ]; then
  echo "gate.sh: the suite could not be run; nothing was compared" >&2
  exit 3
fi
: > "$candidate/run.finished"

if [ ! -e "$baseline" ]; then
  echo "gate.sh: there is no baseline in $baseline yet, so nothing was compared." >&2
  echo "gate.sh: look at $candidate/report.html, then make one: $0 --accept $suite $baseline $candidate" >&2
  exit 3
fi

code=0
prunebench gate "$baseline" "$candidate" --markdown "$candidate/gate.md" --junit "$candidate/gate.xml" \
  ${GATE_TOLERANCES:+--tolerances "$GATE_TOLERANCES"} || code=$?
case "$code" in
  0) ;;
  1) echo "gate.sh: a regression. If it is intended: $0 --accept $suite $baseline $candidate" >&2 ;;
  3) echo "gate.sh: nothing got worse, but not everything could be compared" >&2 ;;
  *) echo "gate.sh: the gate could not be run" >&2 ;;
esac
exit "$code"
