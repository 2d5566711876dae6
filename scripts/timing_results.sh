#!/bin/sh
# The records of chapters 9 and E: Table 3's stop-watch, and the ladders. For a machine that does nothing else; an hour and a half on 2 cores.
# What is recorded already is not measured again. The backends of OpenVINO are measured where it is installed; without it they are left out.
#
#   scripts/timing_results.sh models      # fine-tunes the default models on the documentation's tasks: may share the machine
#   scripts/timing_results.sh             # measures
set -e
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
TASKS="doc-acceptability doc-package doc-same doc-signature doc-near doc-qa"

record() { # name, command: unless it is there
    output=data/results/timing/$1.json
    shift
    [ -e "$output" ] || $PYTHON -m "$@" --output "$output"
}

ladder() { # name, task, settings
    name=$1 task=$2
    shift 2
    record "ladder-$name" distil_lib.timing.backend_comparison --teacher "runs/ladder/teacher-$task/seed-0" --student "runs/ladder/student-$task/seed-0" \
        --task "$task" "$@"
}

if [ "$1" = models ]; then
    for model in student teacher; do
        for task in $TASKS; do
            folder=runs/ladder/$model-$task rows=0
            [ "$task" != doc-qa ] || rows=1000
            [ -e "$folder.json" ] || $PYTHON -m distil_lib.finetune --model "data/$model" --task "$task" --seeds 1 --learning_rate 3e-4 \
                --precision bf16 --group_by_length --threads 1 --max_length 64 --train_rows $rows --save "$folder" --output "$folder.json"
        done
    done
    exit
fi

record table3 distil_lib.timing --threads 1 2
record table3-stsb distil_lib.timing --data stsb --pairs 1500 --rounds 1 --threads 2 # the whole set, once: needs the Hub
record ladder-full distil_lib.timing.backend_comparison --threads 1 2
ladder default doc-package --threads 1 2
for task in $TASKS; do # scores, with few times; compiled, plain PyTorch takes long to begin and says the same
    [ "$task" = doc-package ] || ladder "$task" "$task" --batches 1 --lengths 32 --rounds 3 --backends "bf16 autocast" "bf16 weights" \
        "onnx fp32" "onnx int8" "onnx int8, first token" "openvino fp32" "openvino bf16"
done
