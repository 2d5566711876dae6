"""Checkpoints: what goes in comes out to the bit, and what is not whole is not taken."""

import errno
import json
import os
import subprocess

import pytest
import torch
from helpers import randomize
from transformers import DistilBertConfig

from distil_lib.common.files import atomic_folder
from distil_lib.errors import UserError
from distil_lib.student import Student
from distil_lib.training import checkpoint as library
from distil_lib.training.checkpoint import (
    find_corruption,
    latest_valid_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from distil_lib.training.optimization import build_optimizers, linear_schedule

SIZES = {
    "vocab_size": 30,
    "dim": 16,
    "hidden_dim": 32,
    "n_layers": 2,
    "n_heads": 2,
    "dropout": 0.0,
    "attention_dropout": 0.0,
}


class Training:
    """A student with optimizers and schedules; the data of a step depend on its number alone."""

    def __init__(self, optimizer: str, seed: int = 0):
        self.model = randomize(Student(DistilBertConfig(**SIZES)), seed)
        self.optimizers = build_optimizers(self.model, optimizer, learning_rate=0.05)
        self.schedules = [linear_schedule(o, 2, 20) for o in self.optimizers]
        self.done = 0

    def train(self, steps: int) -> "Training":
        for _ in range(steps):
            ids = torch.randint(0, 30, (4, 8), generator=torch.Generator().manual_seed(self.done))
            torch.nn.functional.cross_entropy(
                self.model(ids).logits.flatten(0, 1), ids.flatten()
            ).backward()
            for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
                optimizer.step(), schedule.step(), optimizer.zero_grad()
            self.done += 1
        return self

    def save(self, folder, **options):
        return save_checkpoint(
            folder, self.done, self.model, self.optimizers, self.schedules, **options
        )

    def load(self, checkpoint):
        self.done, extra = load_checkpoint(checkpoint, self.model, self.optimizers, self.schedules)
        return extra

    def bits(self) -> dict[str, bytes]:
        """Weights, optimizer state and learning rates."""
        tensors = dict(self.model.named_parameters())
        for number, optimizer in enumerate(self.optimizers):
            tensors |= {
                f"{number}.lr.{i}": torch.tensor(g["lr"], dtype=torch.float64)
                for i, g in enumerate(optimizer.param_groups)
            }
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"{number}.{index}.{k}": torch.as_tensor(v) for k, v in state.items()}
        return {name: t.detach().numpy().tobytes() for name, t in tensors.items()}


@pytest.fixture(params=["adamw", "muon"])
def training(request):
    return Training(request.param).train(5)


# --------------------------------------------------------------------------------------- round trip
def test_what_goes_in_comes_out_to_the_bit_and_training_goes_on_as_if_never_stopped(
    training, tmp_path
):
    """Oracle: the training that was not interrupted."""
    extra = {"metrics_bytes": 7, "figures": {"accuracy": 0.1}}
    saved = training.save(tmp_path, extra=extra)
    other = Training("muon" if len(training.optimizers) == 2 else "adamw", seed=9).train(2)
    assert other.load(saved) == extra
    assert other.done == 5 and other.bits() == training.bits()
    assert other.train(6).bits() == training.train(6).bits()


@pytest.mark.parametrize("forgotten", ["optimizers", "schedules"])
def test_a_state_that_is_forgotten_would_be_noticed(forgotten, training, tmp_path):
    """The bug put in on purpose: the optimizers, or the schedules, start anew."""
    other = Training("muon" if len(training.optimizers) == 2 else "adamw")
    other.load(training.save(tmp_path))
    assert other.bits() == training.bits()
    if forgotten == "optimizers":
        for optimizer in other.optimizers:
            optimizer.state.clear()
    else:
        for optimizer in other.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"]
        other.schedules = [linear_schedule(o, 2, 20) for o in other.optimizers]
    assert other.train(6).bits() != training.train(6).bits()


def test_tied_weights_stay_tied_and_are_stored_once(training, tmp_path):
    saved = training.save(tmp_path)
    parameters = sum(p.numel() for p in training.model.parameters())
    assert 4 * parameters < (saved / "model.safetensors").stat().st_size < 4 * parameters + 10_000
    training.load(saved)
    assert (
        training.model.vocab_projector.weight
        is training.model.distilbert.embeddings.word_embeddings.weight
    )


@pytest.mark.parametrize("other", [{"n_layers": 3}, {"n_layers": 1}, {"hidden_dim": 48}])
def test_a_checkpoint_of_another_model_is_refused_and_changes_nothing(other, tmp_path):
    """With fewer weights, with more, or of another shape."""
    saved = Training("adamw").train(1).save(tmp_path)
    model = Student(DistilBertConfig(**SIZES | other))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(UserError, match="another model"):
        load_checkpoint(saved, model, [], [])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("made, read", [("adamw", "muon"), ("muon", "adamw")])
def test_a_checkpoint_of_another_optimizer_is_refused(made, read, tmp_path):
    saved = Training(made).train(1).save(tmp_path)
    with pytest.raises(UserError, match="optimizer"):
        Training(read).load(saved)


@pytest.mark.parametrize("before, after", [(True, False), (False, True)])
def test_a_compiled_model_and_a_plain_one_share_checkpoints(before, after, tmp_path):
    """torch.compile puts `_orig_mod.` before every name; the plain model is the oracle."""

    def made(compiled, seed=0):
        training = Training("adamw", seed)
        if compiled:
            training.model = torch.compile(training.model, backend="eager")
        return training

    expected = Training("adamw").train(1)
    training = made(before).train(1)
    saved = training.save(tmp_path)
    assert not any("_orig_mod" in n for n in library.load_file(saved / "model.safetensors"))
    other = made(after, seed=5)
    other.load(saved)
    weights = {k.replace("_orig_mod.", ""): v for k, v in other.model.state_dict().items()}
    assert all(torch.equal(v, weights[k]) for k, v in expected.model.state_dict().items())


def test_weights_that_were_saved_under_torch_compiles_names_are_read(tmp_path):
    """As checkpoints of earlier versions were."""
    training = Training("adamw").train(1)
    saved = training.save(tmp_path)
    path = saved / "model.safetensors"
    library.save_file({f"_orig_mod.{k}": v for k, v in library.load_file(path).items()}, path)
    other = Training("adamw", seed=5)
    other.load(saved)
    assert other.bits() == training.bits()


# ------------------------------------------------------------------------------------------- damage
def files_of(folder) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


FILES = ("model.safetensors", "optimizer.safetensors", "state.json")
HARMS = [(name, harm) for name in FILES for harm in (truncate, flip_a_bit, empty, os.remove)]


@pytest.mark.parametrize(
    "name, harm", [*HARMS, *(("manifest.json", harm) for harm in (truncate, empty, os.remove))]
)
def test_a_damaged_checkpoint_is_named_and_passed_over_for_the_one_before(
    name, harm, tmp_path, capsys
):
    training = Training("adamw").train(1)
    before = training.save(tmp_path)
    newest = training.train(1).save(tmp_path)
    assert latest_valid_checkpoint(tmp_path) == newest and find_corruption(newest) is None
    harm(newest / name)
    assert latest_valid_checkpoint(tmp_path) == before
    message = capsys.readouterr().err
    assert str(newest) in message and ("manifest" if name == "manifest.json" else name) in message


def test_a_wrong_hash_in_the_manifest_counts_as_damage(tmp_path):
    saved = Training("adamw").train(1).save(tmp_path)
    files = json.loads((saved / "manifest.json").read_text())
    files["model.safetensors"]["sha256"] = "0" * 64
    (saved / "manifest.json").write_text(json.dumps(files))
    assert "model.safetensors" in find_corruption(saved)


def test_the_manifest_covers_every_file(training, tmp_path):
    saved = training.save(tmp_path)
    assert set(json.loads((saved / "manifest.json").read_text())) == {
        p.name for p in saved.iterdir()
    } - {"manifest.json"}


def test_where_no_checkpoint_is_whole_there_is_none(tmp_path):
    assert latest_valid_checkpoint(tmp_path) is None
    saved = Training("adamw").train(1).save(tmp_path)
    os.remove(saved / "model.safetensors")
    assert latest_valid_checkpoint(tmp_path) is None


@pytest.mark.parametrize(
    "keep, left", [(1, [4]), (2, [3, 4]), (9, [1, 2, 3, 4]), (0, [1, 2, 3, 4])]
)
def test_only_the_newest_are_kept(keep, left, tmp_path):
    training = Training("adamw")
    for _ in range(4):
        training.train(1).save(tmp_path, keep=keep)
    assert [int(p.name.removeprefix("step-")) for p in library.list_checkpoints(tmp_path)] == left


# ------------------------------------------------------------------------- interrupted while saving
@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize(
    "error, message",
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk is full"),
        (OSError(errno.EDQUOT, "Quota"), "quota of the disk is used up"),
        (KeyboardInterrupt(), None),
    ],
)
def test_saving_that_fails_leaves_the_last_checkpoint_whole_and_nothing_beside_it(
    call, error, message, tmp_path, monkeypatch
):
    """The first and the second file of tensors."""
    training = Training("muon").train(1)
    good = training.save(tmp_path)
    before = files_of(tmp_path)
    calls, save_file = 0, library.save_file

    def fails(tensors, path):
        nonlocal calls
        calls += 1
        save_file(tensors, path)
        if calls == call:
            raise error

    monkeypatch.setattr(library, "save_file", fails)
    with pytest.raises(UserError if message else KeyboardInterrupt, match=message):
        training.train(1).save(tmp_path, keep=1)
    assert files_of(tmp_path) == before and latest_valid_checkpoint(tmp_path) == good
    assert [p.name for p in tmp_path.iterdir()] == [good.name]


@pytest.fixture
def tiny_disk(tmp_path):
    """A real file system of 200 kB. Only the superuser can make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", folder], capture_output=True
        )
        if os.name == "posix"
        else None
    )
    if made is None or made.returncode:
        pytest.skip("no right to mount a file system of a limited size here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_really_full(tiny_disk):
    """One checkpoint of some 130 kB has room, the second has not."""
    training = Training("adamw").train(1)
    good = training.save(tiny_disk)
    with pytest.raises(UserError, match="disk is full"):
        training.train(1).save(tiny_disk)
    assert latest_valid_checkpoint(tiny_disk) == good
    assert [p.name for p in tiny_disk.iterdir()] == [good.name]


def test_a_folder_takes_its_name_when_it_is_whole_and_not_before(tmp_path):
    target = tmp_path / "model"
    with atomic_folder(target) as beside:
        (beside / "a").write_text("new")
        assert not target.exists()
    assert files_of(target) == {"a": b"new"}
    with pytest.raises(RuntimeError), atomic_folder(target) as beside:
        (beside / "a").write_text("newer")
        raise RuntimeError
    assert files_of(tmp_path) == {"model/a": b"new"}
    with atomic_folder(target) as beside:  # what was there is replaced as a whole
        (beside / "b").write_text("newest")
    assert files_of(tmp_path) == {"model/b": b"newest"}


def test_what_a_kill_left_half_written_is_no_checkpoint_and_is_in_nobodys_way(tmp_path):
    half = tmp_path / ".step-00000001.partial"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    assert latest_valid_checkpoint(tmp_path) is None
    saved = Training("adamw").train(1).save(tmp_path)
    assert find_corruption(saved) is None and not half.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", ["weights", "optimizer"])
def test_numbers_that_are_none_are_refused_by_name_whatever_the_hashes_say(place, value, tmp_path):
    """Else a run that has all its steps would publish them: nothing computes with them before."""
    training = Training("adamw").train(2)
    name, weight = list(training.model.named_parameters())[3]
    spoilt = weight.data if place == "weights" else training.optimizers[0].state[weight]["exp_avg"]
    spoilt.flatten()[1] = value
    saved, other = training.save(tmp_path), Training("adamw")
    before = other.bits()
    with pytest.raises(UserError, match="NaN or infinity") as error:
        other.load(saved)
    assert name in str(error.value) and str(saved) in str(error.value) and other.bits() == before


@pytest.mark.parametrize(
    "entries",
    [
        {"step": -5},
        {"schedules": [5]},
        {"extra": {"inputs": [1]}},
        {"extra": {"arithmetic": "x"}},
        {"extra": {"positions": 5}},
        {"param_groups": {}},
    ],
)
def test_a_state_of_no_run_is_named(entries, tmp_path):
    sound = {"step": 1, "extra": {}, "param_groups": [], "schedules": [{}]}
    (tmp_path / "state.json").write_text(json.dumps(sound))
    assert library.read_state(tmp_path) == sound
    (tmp_path / "state.json").write_text(json.dumps(sound | entries))
    with pytest.raises(UserError, match="not the state of a run"):
        library.read_state(tmp_path)
