#!/bin/sh
# The records in data/results/real: a real teacher, its student and two baselines on tasks of GLUE, IMDb and SQuAD. Three hours on one core for
# a seed. (Here: five seeds of stsb and mrpc, three of sst2, imdb and squad, one of the second distillation.)
#
#   scripts/real_results.sh 3                    # with three seeds; those that are recorded are not run again
#
# Before: `make encoder`, then the runs that data/results/real_teacher/README.md names, into runs/.
set -e
cd "$(dirname "$0")/.."
seeds=${1:-1}
for task in sst2 mrpc stsb imdb squad; do
    case $task in
    sst2) size="--train_rows 20000 --epochs 3" ;;
    imdb) size="--train_rows 5000 --epochs 2 --max_length 128" ;;
    squad) size="--epochs 3" ;;
    *) size="--epochs 5" ;;
    esac
    for model in teacher student without-teacher from-nothing; do
        # shellcheck disable=SC2086
        ${PYTHON:-.venv/bin/python} -m distil_lib.finetune --model "runs/real-$model/model" --task $task --learning_rate 2e-4 --seeds "$seeds" \
            --precision bf16 --group_by_length --threads 1 --output "data/results/real/$model/$task.json" $size
    done
done
# A second teacher: the one of seed 0.
finetune="${PYTHON:-.venv/bin/python} -m distil_lib.finetune --task squad --learning_rate 2e-4 --epochs 3 --precision bf16 --group_by_length --threads 1"
test -d runs/real-teacher-squad/seed-0 ||
    $finetune --model runs/real-teacher/model --seeds 1 --save runs/real-teacher-squad --output runs/real-teacher-squad.json
$finetune --model runs/real-student/model --seeds "$seeds" --distil_from runs/real-teacher-squad/seed-0 \
    --output data/results/real/student/squad-distilled.json
${PYTHON:-.venv/bin/python} -m distil_lib.finetune.words_alone data/results/real/teacher/sst2.json data/results/real/teacher/mrpc.json \
    data/results/real/teacher/stsb.json data/results/real/teacher/imdb.json
