#!/bin/sh
# The records of chapters 7 and B: each model on each task, with several seeds. `make results` runs it; some five hours on 2 cores.
#
#   scripts/finetune_results.sh docs teacher student       # the documentation's tasks, for two of the models
#   scripts/finetune_results.sh real                       # those of the Hub, for all models
#
# Afterwards, the bag of words on the same rows: python -m distil_lib.finetune.words_alone data/results/teacher/*.json
# What is recorded already is not run again: it may be stopped at any time and started again, or be started twice for two models.
# Models and their tasks are small: one recipe, chosen on the student with one seed among 3e-4 and 8e-4 and on the teacher among 1e-4 and
# 3e-4. They were pretrained on 64 tokens at a time, and the documentation's tasks are cut there; the other tasks teach them later positions.
set -e
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}

weights() {
    case $1 in
    teacher | student) echo "data/$1" ;;
    student-without-teacher) echo runs/mini-without-teacher/model ;;
    elmo) echo runs/elmo-mini/model ;;
    esac
}

finetune() { # model, task, settings
    model=$1 task=$2
    shift 2
    $PYTHON -m distil_lib.finetune --model "$(weights "$model")" --task "$task" --learning_rate 3e-4 --precision bf16 --group_by_length \
        --threads 1 --output "data/results/$model/$task.json" "$@"
}

docs() { # model
    length=64 rate=3e-4
    [ "$1" != elmo ] || length=58 rate=1e-3 # words, which are 64 word pieces; a head of LSTMs that starts at random
    for task in doc-acceptability doc-package doc-same doc-signature doc-near; do
        finetune "$1" "$task" --max_length "$length" --learning_rate "$rate"
    done
    [ "$1" != elmo ] || return 0 # it has no head for questions
    questions "$1" doc-qa --max_length 64 --train_rows 1000
}

real() { # model
    if [ "$1" = elmo ]; then
        finetune "$1" sst2 --train_rows 10000 --learning_rate 1e-3
        return
    fi
    finetune "$1" mrpc
    finetune "$1" stsb
    finetune "$1" sst2 --train_rows 10000
    finetune "$1" imdb --train_rows 3000 --max_length 128 --seeds 3
    questions "$1" squad --max_length 128 --train_rows 1200 --seeds 3
}

questions() { # model, task, settings: the teacher is kept, and the student learns from it a second time
    model=$1 task=$2
    shift 2
    if [ "$model" = teacher ]; then
        finetune "$model" "$task" "$@" --save "runs/teacher-$task"
    else
        finetune "$model" "$task" "$@"
    fi
    if [ "$model" = student ]; then
        finetune "$model" "$task" "$@" --distil_from "runs/teacher-$task/seed-0" --output "data/results/student/$task-distilled.json"
    fi
}

suites=docs\ real
case $1 in docs | real) suites=$1 && shift ;; esac
for suite in $suites; do
    for model in ${@:-teacher student student-without-teacher elmo}; do
        $suite "$model"
    done
done
