"""What a run leaves can be published: uploaded to a stand-in of the Hub, the folder arrives whole,
and opens again.
"""

import hashlib
import json
import threading
from base64 import b64decode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.cli import hf
from transformers import AutoModel, pipeline

from distil_lib.initialization import initialize_student
from distil_lib.student import Student
from distil_lib.teacher import load_teacher
from distil_lib.training.config import PretrainConfig
from distil_lib.training.model_card import model_card


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as an upload asks for; `server.files` is what arrived."""

    def answer(self, content: dict, code: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_GET(self) -> None:
        self.answer({"id": "me/mine", "sha": "0" * 40, "siblings": []})

    def do_PUT(self) -> None:  # the contents of a large file
        data = self.body()
        self.server.large[hashlib.sha256(data).hexdigest()] = data
        self.answer({})

    def do_POST(self) -> None:
        path, data = urlsplit(self.path).path, self.body()
        here = f"http://{self.headers['Host']}"
        if path.endswith("/preupload/main"):
            asked = json.loads(data)["files"]
            kind = lambda name: "lfs" if name.endswith(".safetensors") else "regular"
            answers = [
                {"path": f["path"], "uploadMode": kind(f["path"]), "shouldIgnore": False}
                for f in asked
            ]
            self.answer({"files": answers})
        elif path.endswith("/objects/batch"):
            objects = [
                entry | {"actions": {"upload": {"href": f"{here}/large/{entry['oid']}"}}}
                for entry in json.loads(data)["objects"]
            ]
            self.answer({"transfer": "basic", "objects": objects})
        elif path.endswith("/commit/main"):
            for line in map(json.loads, data.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.server.files[value["path"]] = b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.server.files[value["path"]] = self.server.large[value["oid"]]
            self.answer({"commitUrl": f"{here}/me/mine/commit/0", "commitOid": "0" * 40})
        else:  # the repository is made, the card's metadata looked at
            self.answer({"url": f"{here}/me/mine", "name": "me/mine"})

    def log_message(self, *words) -> None:
        pass


@pytest.fixture
def hub(monkeypatch):
    """A stand-in on this machine; nothing of the network is asked."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.large = {}, {}
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def model_folder(teacher_folder, tokenizer, tmp_path):
    """The folder `model` of a run, as `final_model` writes it."""
    folder = tmp_path / "model"
    student = initialize_student(load_teacher(teacher_folder), dropout=0.0)
    student.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = PretrainConfig(teacher=str(teacher_folder), corpus="my_text", max_steps=5)
    record = {"shape": "2 layers x 16", "fingerprint": "0", "tokens": 5, "steps": 5, "minutes": 1}
    record |= {"tokens_per_second": 5, "processes": 1, "precision": "fp32"}
    figures = {"mlm_loss": 2.0, "accuracy": 0.5}
    card = model_card(config, ["--preset", "mine"], record, figures, {"cores": 2}, student.config)
    (folder / "README.md").write_text(card)
    (folder / "curves.png").write_bytes(b"\x89PNG\r\n")
    return folder


@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # huggingface_hub's own
def test_the_folder_of_a_model_arrives_whole_and_opens(hub, model_folder, tmp_path, monkeypatch):
    """`hf upload me/mine FOLDER`, as page I says it."""
    here = f"http://127.0.0.1:{hub.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", here)
    command = ["upload", "me/mine", str(model_folder), "--token", "hf_none"]
    hf.app(command, standalone_mode=False)
    sent = {p.name: p.read_bytes() for p in model_folder.iterdir()}
    assert hub.files == sent
    assert {"README.md", "config.json", "curves.png", "model.safetensors"} <= sent.keys()
    assert "tokenizer.json" in sent
    arrived = tmp_path / "arrived"
    arrived.mkdir()
    for name, content in hub.files.items():
        (arrived / name).write_bytes(content)
    card = ModelCard.load(arrived / "README.md")
    assert (card.data.pipeline_tag, card.data.library_name) == ("fill-mask", "transformers")
    assert card.data.license is None and "Add `license:`" in card.text  # text of one's own
    guesses = pipeline("fill-mask", model=str(arrived), top_k=3)("the [MASK] of a value")
    assert len(guesses) == 3


def test_the_encoder_alone_gives_the_students_states(model_folder, tokenizer):
    """What `AutoModel` opens for sentence vectors is the student without its head."""
    ids = tokenizer(["the size of a value", "a row"], padding=True, return_tensors="pt")
    encoder, student = (
        AutoModel.from_pretrained(model_folder),
        Student.from_pretrained(model_folder),
    )
    with torch.no_grad():
        found = encoder(ids.input_ids, ids.attention_mask).last_hidden_state
        expected = student(ids.input_ids, ids.attention_mask).last_hidden_state
    seen = ids.attention_mask.bool()
    torch.testing.assert_close(found[seen], expected[seen], rtol=1e-4, atol=1e-5)
