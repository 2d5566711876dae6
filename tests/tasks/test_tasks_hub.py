"""Tasks over the Hub's own protocol: real files from a stand-in, a connection that drops, and one
that is not there.
"""

import json
import shutil

import pytest
import torch
from datasets import Dataset
from helpers import free_port, shared_hub
from test_hub import answer, endpoint, online, serve  # noqa: F401  (fixtures)
from transformers import (
    AutoTokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    pipeline,
)

pytestmark = pytest.mark.skipif(
    shared_hub() is None, reason="no stand-in for the Hub at ../shared/hub/serve.py"
)

LOAD = """
    import json, sys
    from distil_lib.common.errors import exit_on_user_error
    from distil_lib.tasks.registry import load_task
    result = {}
    with exit_on_user_error():
        for name in sys.argv[1:]:
            task, data = load_task(name)
            sizes = {split: len(rows) for split, rows in data.items()}
            train = data["train"]
            result[name] = {"rows": sizes, "columns": sorted(train.column_names),
                            "labels": task.labels, "first": train[0]}
    print(json.dumps(result))
"""


def test_tasks_load_from_the_hub(endpoint, online):  # noqa: F811
    """Oracle: the sizes that the data sets' own papers and pages give; SQuAD's dev set (10,570
    questions) is cut in two here.
    """
    tasks = answer(online(endpoint, "-c", LOAD, "sst2", "mrpc", "stsb", "imdb", "squad"))
    sizes = {name: list(task["rows"].values()) for name, task in tasks.items()}
    assert (
        sizes["sst2"] == [67349, 872]
        and sizes["mrpc"] == [3668, 408]
        and sizes["stsb"] == [5749, 1500]
    )
    assert sizes["imdb"] == [25000, 25000] and sum(sizes["squad"]) == 10570
    assert tasks["sst2"]["columns"] == tasks["imdb"]["columns"] == ["label", "text_a"]
    assert tasks["mrpc"]["columns"] == tasks["stsb"]["columns"] == ["label", "text_a", "text_b"]
    assert {"question", "context", "answers", "id"} <= set(tasks["squad"]["columns"])
    assert tasks["sst2"]["first"] == {
        "text_a": "hide new secretions from the parental units ",
        "label": 0,
    }  # as the Hub's viewer shows


def test_a_connection_that_drops_every_third_file_is_borne(serve, online):  # noqa: F811
    done = online(serve("--fail-every", "3"), "-c", LOAD, "mrpc", "stsb")
    assert answer(done)["stsb"]["rows"] == {"train": 5749, "validation": 1500}


@pytest.mark.parametrize("name", ["mrpc", "rte"])
def test_what_cannot_be_loaded_is_one_clear_message(endpoint, online, name):  # noqa: F811
    """Nobody listens at the address, and a configuration that the stand-in lacks."""
    address = f"http://127.0.0.1:{free_port()}" if name == "mrpc" else endpoint
    done = online(address, "-c", LOAD, name)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert (
        f"error: {name} could not be loaded from nyu-mll/glue on the Hub" in done.stderr
        and "--data_dir" in done.stderr
    )


def test_a_published_checkpoint_is_scored_by_one_command(serve, online, tmp_path):  # noqa: F811
    """The command of the book, on a small model under the published name.

    Oracle: the pipeline of `transformers`, from the folder.
    """
    name, hub = "distilbert/distilbert-base-uncased-finetuned-sst-2-english", shared_hub().parent
    folder = tmp_path / "root" / "models" / name
    AutoTokenizer.from_pretrained(
        hub / "models" / "google-bert" / "bert-base-uncased"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"dim": 16, "hidden_dim": 32, "n_layers": 1, "n_heads": 2, "initializer_range": 1.0}
    names = {"id2label": {0: "NEGATIVE", 1: "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1}}
    DistilBertForSequenceClassification(DistilBertConfig(**shape, **names)).save_pretrained(folder)
    data = shutil.copytree(
        hub / "datasets" / "nyu-mll" / "glue", tmp_path / "root" / "datasets" / "nyu-mll" / "glue"
    )
    address = serve("--root", str(tmp_path / "root"))
    command = [
        "--model",
        name,
        "--task",
        "sst2",
        "--evaluate_only",
        "--precision",
        "fp32",
        "--output",
        tmp_path / "result.json",
    ]
    done = online(address, "-m", "distil_lib.finetune", *command)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "result.json").read_text())

    rows = Dataset.from_parquet(
        str(next((data / "sst2").glob("validation*"))), cache_dir=str(tmp_path / "cache")
    )
    said = [
        answer["label"]
        for answer in pipeline("text-classification", str(folder))(
            rows["sentence"][:], batch_size=64, truncation=True
        )
    ]
    assert record["seeds"]["0"]["predictions"]["validation"] == " ".join(
        "01"[label == "POSITIVE"] for label in said
    )
    right = sum(
        (label == "POSITIVE") == truth for label, truth in zip(said, rows["label"], strict=True)
    )
    assert record["summary"]["validation"]["accuracy"]["median"] == pytest.approx(100 * right / 872)
    assert 0 < said.count("POSITIVE") < 872 and f"accuracy {100 * right / 872:.1f}" in done.stdout
