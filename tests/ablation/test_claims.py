"""Claim files: of several processes one works, and what a dead one had claimed is taken over."""

import json
import os
import time

from distil_lib.ablation import claims


def test_a_claim_is_alone_until_its_process_is_gone(tmp_path):
    with claims.take(tmp_path, "x") as mine:
        assert mine.held
        with claims.take(tmp_path, "x") as second, claims.take(tmp_path, "y") as other:
            assert second is None and other
        (path,) = claims.claims(tmp_path, "x")
        owner = json.loads(path.read_text())
        assert owner["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())
    dead = [
        owner | {"began": owner["began"] - 3600},  # the number was used again
        owner | {"pid": 2**22 + 1},
        owner | {"host": "elsewhere"},
        {},
    ]
    for number, content in enumerate(dead):
        path = tmp_path / f".z{number}.claim-0"
        path.write_text(json.dumps(content) if content else "")
        foreign = content.get("host") != owner["host"]
        with claims.take(tmp_path, f"z{number}") as taken:
            assert (
                taken is None
            ) == foreign  # elsewhere it may still be alive, and so may one that is not written yet
            assert not taken or (taken.path.name.endswith("claim-1") and not path.exists())
        if foreign:
            long_ago = time.time() - claims.PATIENCE - 1
            os.utime(path, (long_ago, long_ago))
            with claims.take(tmp_path, f"z{number}") as taken:
                assert taken and taken.held
                taken.path.unlink()
                assert not taken.held


def test_of_two_that_take_over_one_withdraws(tmp_path, monkeypatch):
    """The slower one looks, sees a dead claim, sleeps; meanwhile the other takes it over, and has to win."""
    (tmp_path / ".x.claim-3").write_text(json.dumps({"host": "elsewhere"}))
    os.utime(tmp_path / ".x.claim-3", (0, 0))
    fast, opened = [], os.open

    def slow(path, *how):
        monkeypatch.setattr(os, "open", opened)
        (tmp_path / ".x.claim-3").unlink()  # so that the other's claim has another number
        fast.append(claims._claim(tmp_path, "x"))
        return opened(path, *how)

    monkeypatch.setattr(os, "open", slow)
    with claims.take(tmp_path, "x") as taken:
        assert taken is None and fast[0].held
    assert [p.name for p in claims.claims(tmp_path, "x")] == [".x.claim-0"]
    fast[0].release()


def test_a_claim_is_kept_fresh(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "HEARTBEAT", 0.02)
    with claims.take(tmp_path, "x") as mine:
        os.utime(mine.path, (0, 0))
        end = time.monotonic() + 20
        while mine.path.stat().st_mtime == 0 and time.monotonic() < end:
            time.sleep(0.02)
        assert mine.path.stat().st_mtime > 0
