#!/usr/bin/env bash
# Rehearse every arm of a sweep (dry: composed, checked, planned), then run them all. Three seeds unless a seed is named.
#   ./multirun.sh quant=int5_gptq,int6_gptq
set -euo pipefail
python=${PYTHON:-python}
case " $* " in
  *" seed="* | *" seed.value="*) seeds=() ;;
  *) seeds=(seed=three) ;;
esac
"$python" -m pgolf.run -m "${seeds[@]}" "$@" dry=true
"$python" -m pgolf.run -m "${seeds[@]}" "$@"
