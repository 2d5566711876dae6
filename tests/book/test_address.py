"""What follows from the repository's address: buttons, the set-up cell of a page, the site.

Oracles: git itself, which is given a remote; the Jupyter reader, which reads a changed notebook;
the set-up cell that `notebooks.py` writes; and the commits of a repository that is made here.
"""

import os
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from test_setup_and_packaging import CHAPTERS, ROOT, load_extension, notebooks

launch, publish = (load_extension(name) for name in ("launch", "publish"))
GITHUB = "https://github.com/owner/name"


def git(folder: Path, *arguments: str, day: str = "2026-01-01") -> None:
    options = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgSign=false"]
    moment = {"GIT_AUTHOR_DATE": f"{day}T12:00Z", "GIT_COMMITTER_DATE": f"{day}T12:00Z"}
    command = ["git", "-C", str(folder), *options, *arguments]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | moment)


def buttons(url: str, folder: Path) -> dict:
    """The theme's options, after the extension has seen them."""
    options = {"repository_url": url, "launch_buttons": {"colab_url": "c", "binderhub_url": "b"}}
    config = SimpleNamespace(html_theme_options=options)
    launch.choose_buttons(SimpleNamespace(srcdir=folder), config)
    return options


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://github.com/owner/name", GITHUB),
        ("https://github.com/owner/name.git\n", GITHUB),
        ("git@github.com:owner/name.git", GITHUB),
        ("ssh://git@github.com/owner/name.git", GITHUB),
        ("https://somebody:secret@github.com/owner/na.me.git", "https://github.com/owner/na.me"),
        ("git@gitlab.com:owner/name.git", "https://gitlab.com/owner/name"),
        ("file:///home/somebody/name", ""),
        ("/home/somebody/github.com/owner/name", ""),
        ("../name.git", ""),
        ("http://localhost:3000/owner/name", ""),
        ("https://example.org/github.com/owner/name", ""),
        ("https://github.com.example.org/owner/name", ""),
        ("", ""),
    ],
)
def test_only_a_public_remote_is_an_address(tmp_path, remote, address):
    """Neither a path of this machine nor a password gets onto a page."""
    git(tmp_path, "init", "--quiet")
    if remote:
        git(tmp_path, "remote", "add", "origin", remote.strip())
    assert launch.public_address(remote) == launch.origin(tmp_path) == address
    assert launch.origin(tmp_path / "no_folder") == ""


def test_buttons_follow_the_address(tmp_path):
    git(tmp_path, "init", "--quiet")
    used = ("use_repository_button", "use_edit_page_button", "use_issues_button")
    without = buttons("", tmp_path)
    assert not any(without[name] for name in used)
    assert "launch_buttons" not in without and "repository_url" not in without

    git(tmp_path, "remote", "add", "origin", "git@github.com:owner/name.git")
    found = buttons("", tmp_path)
    assert found["repository_url"] == GITHUB and all(found[name] for name in used)
    assert found["launch_buttons"] == {"colab_url": "c", "binderhub_url": "b"}
    # What `_config.yml` says counts; Colab opens no notebook of GitLab.
    other = buttons("https://gitlab.com/other/name", tmp_path)
    assert other["repository_url"] == "https://gitlab.com/other/name"
    assert other["launch_buttons"] == {"binderhub_url": "b"}


@pytest.mark.parametrize("path", CHAPTERS[:2] + CHAPTERS[-1:], ids=lambda path: path.stem)
def test_a_page_shows_the_address_and_the_stored_notebook_does_not(path):
    stored = path.read_text(encoding="utf-8")
    source = [stored]
    config = SimpleNamespace(html_theme_options={"repository_url": GITHUB})
    launch.show_address(SimpleNamespace(config=config), "book/page", source)
    shown, before = nbformat.reads(source[0], 4), nbformat.reads(stored, 4)
    assert notebooks.first_code_cell(shown).source == notebooks.setup_cell(GITHUB).source
    assert path.read_text(encoding="utf-8") == stored
    notebooks.first_code_cell(shown).source = notebooks.first_code_cell(before).source
    assert shown == before  # nothing else has changed


def test_a_download_has_the_address(tmp_path):
    page = tmp_path / "_sources" / "book" / "page.ipynb"
    page.parent.mkdir(parents=True)
    page.write_text(CHAPTERS[0].read_text(encoding="utf-8"), encoding="utf-8")
    config = SimpleNamespace(html_theme_options={"repository_url": GITHUB})
    launch.write_downloads(SimpleNamespace(config=config, outdir=tmp_path), None)
    cell = notebooks.first_code_cell(notebooks.read(page))
    assert cell.source == notebooks.setup_cell(GITHUB).source


def test_make_address_writes_it_once_and_refuses_a_path(tmp_path, monkeypatch, capsys):
    """Into a copy of `_config.yml`, which is otherwise left as it is."""
    config = tmp_path / "_config.yml"
    before = (ROOT / "_config.yml").read_text(encoding="utf-8")
    config.write_text(before, encoding="utf-8")
    monkeypatch.setattr(notebooks, "CONFIG", config)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "remote", "add", "origin", tmp_path.as_uri())
    with pytest.raises(SystemExit) as stop:
        notebooks.write_address()
    assert stop.value.code == 2 and "origin" in capsys.readouterr().err
    assert config.read_text(encoding="utf-8") == before

    git(tmp_path, "remote", "set-url", "origin", "git@github.com:owner/name.git")
    notebooks.write_address()
    assert notebooks.repository_url() == GITHUB
    changed = config.read_text(encoding="utf-8")
    pairs = list(zip(before.splitlines(), changed.splitlines(), strict=True))
    assert len([pair for pair in pairs if pair[0] != pair[1]]) == 1


# ----------------------------------------------------------------------------------------- the site
@pytest.mark.parametrize(
    ("repository", "site"),
    [
        (GITHUB, "https://owner.github.io/name/"),
        ("https://github.com/Owner/owner.github.io", "https://owner.github.io/"),
        ("https://gitlab.com/owner/name", "https://owner.gitlab.io/name/"),
        ("https://git.example.org/owner/name", ""),
        ("", ""),
    ],
)
def test_address_of_the_site(repository, site):
    assert publish.site_address(repository) == site


def test_the_day_of_a_page_is_that_of_its_last_commit(tmp_path):
    git(tmp_path, "init", "--quiet")
    assert publish.stored_on(tmp_path) == {}
    (tmp_path / "book").mkdir()
    for name, day in (("book/a.ipynb", "2026-03-01"), ("index.md", "2026-03-02")):
        (tmp_path / name).write_text("first")
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "--quiet", "-m", name, day=day)
    (tmp_path / "book" / "a.ipynb").write_text("second")
    git(tmp_path, "commit", "--quiet", "-a", "-m", "again", day="2026-03-05")
    (tmp_path / "other").write_text("no page")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "other", day="2026-03-06")
    assert publish.stored_on(tmp_path) == {
        "book/a.ipynb": date(2026, 3, 5),
        "index.md": date(2026, 3, 2),
    }
    # Without its history a clone does not know, and says nothing.
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--depth", "1", tmp_path.as_uri(), str(clone))
    assert (clone / "index.md").is_file() and publish.stored_on(clone) == {}


@pytest.mark.parametrize("command", ["execute", "cells"])
@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"cells": 5}', "\0"])
def test_what_is_no_notebook_is_one_message_and_no_page_is_touched(
    command, content, tmp_path, monkeypatch, capsys
):
    page, wrong = tmp_path / "page.ipynb", tmp_path / "wrong.ipynb"
    shutil.copy(CHAPTERS[0], page)
    before = page.read_bytes()
    if content is not None:
        wrong.write_text(content)
    monkeypatch.setattr(sys, "argv", ["notebooks.py", command, str(page), str(wrong)])
    with pytest.raises(SystemExit) as end:
        notebooks.main()
    said = capsys.readouterr().err
    assert end.value.code == 2 and "wrong.ipynb is no notebook" in said
    assert page.read_bytes() == before
