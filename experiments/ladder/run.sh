#!/usr/bin/env bash
# The ladder: every system from the baseline to frontier on the same tokens of one corpus, then frontier with one part taken away
# at a time. Given again it takes up what is left. Words are added to those of every job:
#   experiments/ladder/run.sh [seed=1337] [limits.train_steps=100] [data.val_fraction=0.005]
set -euo pipefail
python=${PYTHON:-python}
folder=${LADDER:-sweeps/ladder}
words=(scale=laptop limits.train_seconds=36000 limits.eval_seconds=36000 "$@")
case " $* " in *" seed="*) ;; *) words+=(seed=three) ;; esac
case " $* " in *" limits.train_steps="*) ;; *) words+=(limits.train_steps=1000) ;; esac

# sweep NAME WORD ...: one multirun, which leaves alone what is complete
sweep() { "$python" -m pgolf.run -m "${@:2}" "${words[@]}" hydra.sweep.dir="$folder/$1"; }
# judged NAME WORD ...: the same, from the artifacts of the ladder
judged() { sweep "$@" trained="$folder/rungs"; }

learning=pr606_int5_softround,pr639_full_gptq,pr1129_crownq,pr1852_legal,pr1855_record,pr2014_long_context,pr2135_token_tilt,frontier
sweep rungs experiment="baseline_sp1024,$learning"
judged plain experiment="$learning" ttt=none
judged whole experiment=frontier
judged without_tilt experiment=frontier ttt/mixer=null
judged without_short_chunks experiment=frontier 'ttt.short_tokens=[]' 'ttt.short_chunks=[]'
sweep without_growing_cut experiment=frontier data/loader=documents
sweep without_protect experiment=frontier quant/protect=null
sweep without_low_rank experiment=frontier quant/low_rank=null
sweep without_head_gate experiment=frontier model/head_gate=null
sweep without_smear experiment=frontier model/window_smear=null
sweep without_lanes experiment=frontier model/lanes=null
sweep without_average experiment=frontier average=none
