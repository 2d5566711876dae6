#!/usr/bin/env bash
# The three recipes of page I at a small scale: some five minutes on a quiet core. What came out is in data/results/recipes.
# Needs runs/encoder (`make encoder`).
set -euo pipefail
cd "$(dirname "$0")/.."
out=data/results/recipes
mkdir -p "$out"
small="--eval_blocks 128 --overwrite"

# 1. Own text with the default teacher: the words of this book
python - <<'PY'
import json
from pathlib import Path

folder = Path("runs/my_text")
folder.mkdir(parents=True, exist_ok=True)
for page in sorted(Path("book").glob("*.ipynb")):
    cells = json.loads(page.read_text(encoding="utf-8"))["cells"]
    words = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    (folder / f"{page.stem}.txt").write_text("\n\n".join(words), encoding="utf-8")
PY
python -m distil_lib.pretrain --preset mini --corpus runs/my_text --output runs/own-text \
    --max_steps 60 --batch_size 16 --eval_every 20 --log_every 5 $small
cp runs/own-text/metrics.jsonl "$out/own-text-metrics.jsonl"

# 2. An own encoder with own text: first its head, then its student
python -m distil_lib.pretrain --preset real-teacher --corpus runs/my_text --output runs/own-encoder \
    --max_steps 40 --batch_size 8 --eval_every 10 --log_every 5 $small
python -m distil_lib.pretrain --preset real-student --corpus runs/my_text --output runs/own-encoder-student \
    --teacher runs/own-encoder/model --max_steps 40 --batch_size 8 --eval_every 10 --log_every 5 $small
cp runs/own-encoder/metrics.jsonl "$out/encoder-teacher-metrics.jsonl"
cp runs/own-encoder-student/metrics.jsonl "$out/encoder-student-metrics.jsonl"

# 3. A fine-tuned classifier to a smaller one, on text without labels
python - <<'PY'
import csv
from pathlib import Path

from distil_lib.tasks.registry import load_task

task, data = load_task("doc-package")
names = [task.labels[label] for label in data["train"]["label"]]
rows = list(zip(data["train"]["text_a"], names, strict=True))
test = [(row["text_a"], task.labels[row["label"]]) for row in data[task.evaluation[0]]]
folder = Path("runs/my_task")
folder.mkdir(parents=True, exist_ok=True)
(folder / "unlabelled.txt").write_text("\n".join(" ".join(text.split()) for text, _ in rows[200:1000]))
for name, part in (("train", rows[:200]), ("test", test[:300])):
    with (folder / f"{name}.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *part])
head = "source: {}\ntext: text\nlabel: label\nmetric: accuracy\nsplits: [train, test]\n"
Path("runs/my_task.yaml").write_text(head.format("my_task"))
Path("runs/my_answers.yaml").write_text(head.format("my_answers"))
PY
common="--seeds 1 --learning_rate 3e-4 --max_length 64"
python -m distil_lib.finetune --model data/teacher --task runs/my_task.yaml $common --epochs 5 \
    --save runs/classifier --output "$out/classifier-teacher.json"
python - <<'PY'
import csv
import shutil
from pathlib import Path

from transformers import pipeline

texts = Path("runs/my_task/unlabelled.txt").read_text().splitlines()
classify = pipeline("text-classification", model="runs/classifier/seed-0")
answers = classify(texts, batch_size=32, truncation=True, max_length=64)
folder = Path("runs/my_answers")
folder.mkdir(exist_ok=True)
shutil.copy("runs/my_task/test.csv", folder)
with (folder / "train.csv").open("w", newline="") as file:
    rows = [(text, answer["label"]) for text, answer in zip(texts, answers, strict=True)]
    csv.writer(file).writerows([("text", "label"), *rows])
PY
python -m distil_lib.finetune --model data/student --task runs/my_answers.yaml $common \
    --distil_from runs/classifier/seed-0 --alpha 1 --output "$out/classifier-student.json"
python -m distil_lib.finetune --model data/student --task runs/my_task.yaml $common --epochs 5 \
    --output "$out/classifier-without-teacher.json"
