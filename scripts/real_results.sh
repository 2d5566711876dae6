#!/bin/sh
# The records in data/results/real: a real teacher, its student and two baselines on tasks of GLUE. An hour and a half on one core for a seed.
#
#   scripts/real_results.sh 3                    # with three seeds; those that are recorded are not run again
#
# Before: `make encoder`, then the runs that data/results/real_teacher/README.md names, into runs/.
set -e
cd "$(dirname "$0")/.."
seeds=${1:-1}
for task in sst2 mrpc stsb; do
    case $task in
    sst2) size="--train_rows 20000 --epochs 3" ;;
    *) size="--epochs 5" ;;
    esac
    for model in teacher student without-teacher from-nothing; do
        # shellcheck disable=SC2086
        ${PYTHON:-.venv/bin/python} -m distil_lib.finetune --model "runs/real-$model/model" --task $task --learning_rate 2e-4 --seeds "$seeds" \
            --precision bf16 --group_by_length --threads 1 --output "data/results/real/$model/$task.json" $size
    done
done
${PYTHON:-.venv/bin/python} -m distil_lib.finetune.words_alone data/results/real/teacher/*.json
