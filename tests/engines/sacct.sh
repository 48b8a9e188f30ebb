#!/usr/bin/env bash
# `sacct -o JobID,State,NodeList --parsable2 -j ID …` without accounting: what submitit asks, answered by the controller.
# It knows a job for as long as the controller does (MinJobAge); of one it does not know it says nothing, as sacct.
set -euo pipefail
echo "JobID|State|NodeList"
while (($#)); do
  if [[ $1 == -j ]]; then
    scontrol --oneliner show job "$2" 2>/dev/null | while read -r line; do
      declare -A of=()
      for word in $line; do of[${word%%=*}]=${word#*=}; done
      job=${of[JobId]}
      [[ -n ${of[ArrayJobId]:-} ]] && job=${of[ArrayJobId]}_${of[ArrayTaskId]}
      [[ $job == *[-,%]* ]] && job=${job%%_*}_[${job#*_}]
      echo "$job|${of[JobState]}|${of[NodeList]:-}"
    done || true
    shift
  fi
  shift
done
