"""The bag of words' records, beside those of fine-tuned models.

    python -m distil_lib.finetune.words_alone data/results/teacher/doc-*.json

writes `data/results/bag-of-words/doc-*.json`: what `tasks.baselines` answers after the same
training rows as the model, on the same test rows, so that `retention` can draw both in pairs. The
score of the constant answer is in the same file, as `majority`.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from distil_lib.common.files import write_result
from distil_lib.common.hardware import describe_machine
from distil_lib.common.processes import run_program
from distil_lib.errors import UserError
from distil_lib.finetune.features import Split
from distil_lib.finetune.finetuning import drawn_rows
from distil_lib.finetune.records import median_and_quartiles, read_record
from distil_lib.tasks.baselines import baseline_answers
from distil_lib.tasks.registry import find_task, fingerprints, load_task


def words_alone(model: dict, arguments: Sequence[str] = ()) -> dict:
    """The record of the bag of words on the rows that a model's record is of.

    Args:
        model: the record of a fine-tuned model.
        arguments: the command line, for the record.

    Raises:
        UserError: if the task's rows are not those of the record any more.
    """
    made = model["configuration"]
    task, data = load_task(model["task"], splits=("train", *find_task(model["task"]).evaluation))
    data["train"] = drawn_rows(data["train"], made["train_rows"])
    measured = fingerprints(data)
    if measured != made["data"]:
        raise UserError(
            f"The rows of {task.name} are not those of the model's record.",
            "Fine-tune the model again on today's rows.",
        )
    split = task.evaluation[0]
    rows = Split(task, data[split], data[split])
    answers = baseline_answers(task, data)
    scores = {name: task.compute(given, rows.references) for name, given in answers.items()}
    bag = answers["bag of words"]
    record = {
        "task": task.name,
        "metric": task.metric,
        "split": split,
        "command": shlex.join(["python", "-m", "distil_lib.finetune.words_alone", *arguments]),
        "configuration": {"train_rows": made["train_rows"], "data": measured},
        "rows": {name: len(part) for name, part in data.items()},
        "machine": describe_machine(),
        "labels": {split: model["labels"][split]} if model["labels"] else {},
        "majority": {split: scores["majority"]},
        "seeds": {
            "0": {
                "scores": {split: scores["bag of words"]},
                "predictions": {split: rows.recorded(bag)},
            }
        },
    }
    return record | {"summary": median_and_quartiles(record)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the record of each file that is named into the folder `bag-of-words` beside its own."""
    files = sys.argv[1:] if arguments is None else list(arguments)

    def run() -> str:
        if not files:
            raise UserError(
                "No result of fine-tuning is named.", "Name files that are, runs/results/*/*.json."
            )
        written = []
        for file in map(Path, files):
            target = file.parent.parent / "bag-of-words" / file.name
            write_result(target, words_alone(read_record(file), [str(file)]))
            written.append(str(target))
        return "\n".join(written)

    run_program(run)


if __name__ == "__main__":
    main()
