"""What a program says and with which code it ends, whatever goes wrong."""

import contextlib
import errno
import os

import pytest
from safetensors import SafetensorError

from distil_lib.common.errors import (
    STORAGE,
    exit_on_user_error,
    other_process_lost,
    resumable,
    storage_problem,
)
from distil_lib.common.files import StorageError, atomic_folder, atomic_write_text, write_result
from distil_lib.errors import UserError

# As safetensors 0.8 and tokenizers 0.23 word the system's errors.
WRAPPED = [
    "Error while serializing: I/O error: Disk quota exceeded (os error 122)",
    'Error while serializing: IoError(Os { code: 122, kind: QuotaExceeded, message: "..." })',
    'IoError(Os { code: 5, kind: Uncategorized, message: "Input/output error" })',
]


def ended(error: BaseException, capsys, begun: bool = False) -> tuple[int, str]:
    """begun: whether there is a run to resume by then."""
    block = resumable() if begun else contextlib.nullcontext()
    with pytest.raises(SystemExit) as end, exit_on_user_error(), block:
        raise error
    return end.value.code, capsys.readouterr().err


def test_the_program_adds_the_flag_to_what_a_function_says(capsys):
    code, said = ended(UserError("Too long.", "Choose a shorter one.", "block_size"), capsys)
    assert code == 2
    assert said == "error: Too long.\n  what to do: Choose a shorter one. (--block_size)\n"


@pytest.mark.parametrize("number", STORAGE)
@pytest.mark.parametrize("begun", [True, False])
def test_resume_is_advice_where_there_is_a_run(number, begun, capsys):
    for error in (
        OSError(number, os.strerror(number), "weights.bin"),
        StorageError("The disk is full: weights.bin could not be saved.", "Free some space."),
    ):
        code, said = ended(error, capsys, begun)
        assert code == 2 and "weights.bin" in said and said.count("\n") == 2
        assert isinstance(error, StorageError) or STORAGE[number][0] in said
        assert ("--resume" in said, "the same command again" in said) == (begun, not begun)


@pytest.mark.parametrize("text", WRAPPED)
@pytest.mark.parametrize("chained", [False, True])
def test_a_disk_is_recognised_in_what_other_libraries_wrap_it_in(text, chained):
    error: Exception = SafetensorError(text)
    if chained:
        error, inner = RuntimeError("could not save"), error
        error.__cause__ = inner
    assert storage_problem(error) is not None
    assert storage_problem(SafetensorError("header too large")) is None


@pytest.mark.parametrize(
    "write", [lambda p: atomic_write_text(p, "x"), lambda p: write_result(p, {"a": 1})]
)
def test_a_full_disk_leaves_the_file_of_before(write, tmp_path, monkeypatch, capsys):
    path = tmp_path / "file"
    path.write_text("before", encoding="utf-8")

    def full(descriptor):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="quota"):
        write(path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text(encoding="utf-8") == "before"


def test_a_full_disk_leaves_the_folder_of_before(tmp_path):
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "a").write_text("before", encoding="utf-8")
    with pytest.raises(StorageError), atomic_folder(tmp_path / "model") as folder:
        (folder / "a").write_text("after", encoding="utf-8")
        raise SafetensorError(WRAPPED[0])
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "a").read_text(encoding="utf-8") == "before"


def test_every_file_and_every_folder_is_flushed_before_it_gets_its_name(tmp_path, monkeypatch):
    """Oracle: the inodes that were flushed; the name comes after them, its folder last."""
    flushed, fsync, rename = [], os.fsync, type(tmp_path).rename

    def watched(descriptor):
        flushed.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def renamed(path, target):
        flushed.append("named")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(type(tmp_path), "rename", renamed)
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "deep").mkdir()
        for name in ("a", "deep/b"):
            (folder / name).write_text(name, encoding="utf-8")
    inner = [p.stat().st_ino for p in (tmp_path / "model").rglob("*")]
    inner.append((tmp_path / "model").stat().st_ino)
    assert sorted(flushed[: flushed.index("named")]) == sorted(inner)
    assert flushed[flushed.index("named") + 1 :] == [tmp_path.stat().st_ino]


def test_too_little_memory_is_one_message(capsys):
    code, said = ended(MemoryError(), capsys)
    assert code == 2 and "not enough memory" in said
    for words in (
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ...",
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of ...",
    ):
        code, said = ended(RuntimeError(words), capsys, begun=True)
        assert code == 2 and "not enough memory" in said and "smaller batch" in said


def test_a_lost_process_is_told_with_what_the_library_said(monkeypatch, capsys):
    monkeypatch.setattr(os, "_exit", lambda code: (_ for _ in ()).throw(SystemExit(code)))
    error = RuntimeError("[gloo/pair.cc:534] Connection closed by peer [127.0.0.1]\nsecond line")
    code, said = ended(error, capsys, begun=True)
    assert code == 1 and "second line" in said and "--resume" in said


def test_processes_that_never_met_are_told_of_the_network_interface(monkeypatch, capsys):
    """Two machines whose names stand for 127.0.0.1, as gloo said it in a trial with two."""
    monkeypatch.setattr(os, "_exit", lambda code: (_ for _ in ()).throw(SystemExit(code)))
    error = RuntimeError(
        "Gloo connectFullMesh failed with [gloo/transport/tcp/pair.cc:152] timed out connecting: "
        "SO_ERROR: Connection refused, remote=[127.0.0.1]:40875"
    )
    code, said = ended(error, capsys, begun=True)
    assert code == 1 and "does not reach" in said and "127.0.0.1" in said
    assert "GLOO_SOCKET_IFNAME" in said and "--resume" not in said


def test_nccls_own_complaints_are_not_taken_for_a_lost_process():
    error = RuntimeError(
        "NCCL error: unhandled system error, NCCL version 2.27\nBootstrap : no socket"
    )
    with pytest.raises(RuntimeError, match="no socket"), exit_on_user_error():
        raise error


def test_a_cache_of_the_hub_that_cannot_be_written_names_its_variable(capsys, monkeypatch):
    from distil_lib.common import paths

    error = PermissionError(errno.EACCES, "Permission denied", f"{paths.HF_HOME}/datasets/x.lock")
    code, said = ended(error, capsys)
    assert code == 2 and "HF_HOME" in said and paths.HF_HOME in said


# As gloo says it: the first three when a network or a machine was taken away while two were
# training, the others by its source.
GLOO = "[/build/third_party/gloo/gloo/transport/tcp/pair.cc:537] "
SAID = [
    "Read error [10.77.0.2]:19607: No route to host. Check the logs of the remote worker.",
    "Read error [10.77.0.1]:22404: Network is unreachable. Check the logs of the remote worker.",
    "Read error [10.77.0.2]:46295: Connection reset by peer.",
    "Read error [10.77.0.2]:46295: Connection timed out.",
    "Write error: Host is down",
]


@pytest.mark.parametrize("words", SAID)
def test_a_machine_that_is_gone_is_a_lost_process(words):
    assert other_process_lost(RuntimeError(GLOO + words))
    assert not other_process_lost(ValueError(GLOO + words))


@pytest.mark.parametrize(
    "words", ["mat1 and mat2 shapes cannot be multiplied", "Expected all tensors on one device"]
)
def test_other_errors_are_none_of_a_network(words):
    assert not other_process_lost(RuntimeError(words))
