"""The card of hashes: what is listed, what is refused, what sealing leaves as it is."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from specialists import CardError, ModelRejected, read_card
from specialists.card import CARD, file_problems, listed_files, seal, verify_files

HEAD = """\
# A comment that stays.
format = 1
name = "greeter"
version = "0.1.0"
description = "Greets."  # and this one
function = "code:greet"

[[measured]]
what = "accuracy"
value = 0.5
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "greeter"
    (folder / "inner").mkdir(parents=True)
    (folder / CARD).write_text(HEAD)
    (folder / "code.py").write_text("x = 1\n")
    (folder / "inner" / "model.onnx").write_bytes(b"\0\1")
    (folder / "README.md").write_text("prose")
    (folder / "certificate.json").write_text("{}")
    seal(folder)
    return folder


def test_seal_lists_each_file_and_may_be_repeated(folder: Path) -> None:
    first = (folder / CARD).read_text()
    assert first.startswith(HEAD)
    card = seal(folder)
    assert (folder / CARD).read_text() == first
    assert list(card.files) == ["code.py", "inner/model.onnx"]
    verify_files(folder, card)
    (folder / "code.py").write_text("x = 2\n")
    again = seal(folder)
    assert again.files["inner/model.onnx"] == card.files["inner/model.onnx"]
    assert again.files["code.py"] != card.files["code.py"]


def test_prose_certificate_and_litter_are_not_listed(folder: Path) -> None:
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "code.pyc").write_bytes(b"")
    (folder / ".DS_Store").write_bytes(b"")
    (folder / "inner" / ".cache").mkdir()
    (folder / "inner" / ".cache" / "x").write_bytes(b"")
    (folder / "greeter.egg-info").mkdir()
    (folder / "greeter.egg-info" / "PKG-INFO").write_bytes(b"")
    assert list(listed_files(folder)) == ["code.py", "inner/model.onnx"]
    verify_files(folder, read_card(folder))
    (folder / "inner" / "README.md").write_text("this one is not at the top")
    with pytest.raises(ModelRejected, match=r"'inner/README.md' is not listed"):
        verify_files(folder, read_card(folder))


def test_28_every_difference_is_refused_by_name_with_the_remedy(folder: Path) -> None:
    card = read_card(folder)
    (folder / "code.py").write_text("x = 3\n")
    with pytest.raises(ModelRejected, match=r"greeter: 'code.py' is not the file the card names.*seal"):
        verify_files(folder, card)
    (folder / "code.py").unlink()
    (folder / "extra.py").write_text("")
    assert [name for name, _ in file_problems(folder, card)] == ["code.py", "extra.py"]


@pytest.mark.parametrize("name", ["../secret.txt", "inner/../code.py", "/etc/passwd", "inner/./model.onnx", "", "."])
def test_27_a_name_that_leads_elsewhere_is_never_read(folder: Path, name: str) -> None:
    (folder.parent / "secret.txt").write_text("canary")
    with (folder / CARD).open("a") as card:
        card.write(f'"{name}" = "{"0" * 64}"\n')
    with pytest.raises(ModelRejected, match="which is not in the folder") as caught:
        verify_files(folder, read_card(folder))
    assert "canary" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links on this system")
def test_27_links_are_refused_to_files_and_to_folders(folder: Path) -> None:
    card = read_card(folder)
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "code.py").write_text("x = 1\n")
    (folder / "code.py").unlink()
    (folder / "code.py").symlink_to(outside / "code.py")
    with pytest.raises(ModelRejected, match=r"'code.py' is a link"):
        verify_files(folder, card)
    with pytest.raises(CardError, match="not a plain file"):
        seal(folder)
    (folder / "code.py").unlink()
    (folder / "code.py").write_text("x = 1\n")
    (folder / "package").symlink_to(outside)
    with pytest.raises(ModelRejected, match="'package' is not listed"):
        verify_files(folder, card)
    with pytest.raises(CardError, match="not a plain file"):
        seal(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_27_a_pipe_is_refused_and_not_waited_for(folder: Path) -> None:
    card = read_card(folder)
    (folder / "code.py").unlink()
    os.mkfifo(folder / "code.py")
    with pytest.raises(ModelRejected, match="not a plain file"):
        verify_files(folder, card)
    with pytest.raises(CardError, match="not a plain file"):
        seal(folder)


def test_names_that_toml_must_escape(folder: Path) -> None:
    for name in ('quo"te.txt', "ünï côdé.txt", "line\nbreak.txt"):
        (folder / name).write_text(name)
    card = seal(folder)
    assert set(card.files) == set(listed_files(folder))
    verify_files(folder, card)


@pytest.mark.skipif(os.name == "nt", reason="such names mean something else there")
@pytest.mark.parametrize("name", ["back\\slash.txt", "C:\\secret.txt", "C:secret.txt", "code.py:stream"])
def test_27_a_name_that_means_something_else_on_another_system_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("canary")
    with pytest.raises(CardError, match="no name for a file on every system") as caught:
        seal(folder)
    assert "canary" not in str(caught.value)
    digest = hashlib.sha256(b"canary").hexdigest()
    with (folder / CARD).open("a") as card:
        card.write(f"'{name}' = '{digest}'\n")
    with pytest.raises(ModelRejected, match="no name for a file on every system"):
        verify_files(folder, read_card(folder))


@pytest.mark.skipif(not hasattr(os, "link"), reason="no hard links on this system")
def test_27_a_second_name_is_refused_but_where_packages_are_installed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = read_card(folder)
    os.link(folder / "code.py", folder.parent / "second")
    with pytest.raises(ModelRejected, match=r"'code.py' has a second name \(a hard link\)"):
        verify_files(folder, card)
    with pytest.raises(CardError, match="has a second name"):
        seal(folder)
    # As uv and conda install: each file is also in their cache.
    monkeypatch.syspath_prepend(str(folder.parent))
    (folder.parent / "greeter-0.1.dist-info").mkdir()
    assert verify_files(folder, card) == {"code.py": b"x = 1\n"}
    with pytest.raises(ModelRejected, match="has a second name"):
        verify_files(folder, card, hard_links=False)


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links on this system")
def test_27_a_card_that_is_a_link_shows_nothing_of_its_target(folder: Path) -> None:
    secret = folder.parent / "secret"
    secret.write_text('canary = "canary"\n')
    (folder / CARD).unlink()
    (folder / CARD).symlink_to(secret)
    with pytest.raises(CardError, match="is a link") as caught:
        read_card(folder)
    assert "canary" not in str(caught.value)
    (folder / CARD).unlink()
    os.mkfifo(folder / CARD)
    with pytest.raises(CardError, match="is not a file"):
        read_card(folder)


def test_a_card_is_a_page_and_not_a_book(folder: Path) -> None:
    with (folder / CARD).open("a") as card:
        card.write("#" * 2**21)
    with pytest.raises(CardError, match="more than the 262,144 allowed"):
        read_card(folder)


def test_a_card_is_read_in_no_time_whatever_is_in_it(folder: Path) -> None:
    """TOML's reader takes minutes for a key of some ten thousand parts."""
    for line in ("a." * 100_000 + "a = 1", "[" + "a." * 100_000 + "a]"):
        (folder / CARD).write_text(f"{HEAD}\n{line}\n")
        with pytest.raises(CardError, match="more than 200 dots"):
            read_card(folder)


def test_seal_never_loses_what_stands_after_the_files(folder: Path) -> None:
    text = (folder / CARD).read_text() + '\n[[measured]]\nwhat = "late"\nvalue = 1\n'
    (folder / CARD).write_text(text)
    with pytest.raises(CardError, match=r"\[files\] must stand last"):
        seal(folder)
    assert (folder / CARD).read_text() == text


@pytest.mark.parametrize("line", ["[files]", "[files]\r", "[files]  # hashes"])
def test_seal_finds_the_table_however_it_is_written(folder: Path, line: str) -> None:
    (folder / CARD).write_bytes(f'{HEAD}\n{line}\n"gone.py" = "{"0" * 64}"\n'.encode())
    assert list(seal(folder).files) == ["code.py", "inner/model.onnx"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "format is missing"),
        (b"\xff\xfe", "is not TOML"),
        (b"format = ", "is not TOML"),
        (b"a = " + b"[" * 50_000, "is not TOML"),
        (HEAD.replace("format = 1", "format = 2").encode(), "format"),
        (HEAD.replace("greeter", "Greet er").encode(), "name"),
        (HEAD.replace("code:greet", "os.system").encode(), "function"),
        (HEAD.replace("code:greet", "../code:greet").encode(), "function"),
        (HEAD.replace("version", "versoin").encode(), "versoin is not a parameter|version is missing"),
        (f'{HEAD}\n[files]\n"a" = "short"\n'.encode(), "files.a"),
    ],
    ids=range(10),
)
def test_what_is_no_card_is_said_in_one_sentence(folder: Path, text: bytes, says: str) -> None:
    (folder / CARD).write_bytes(text)
    with pytest.raises(CardError, match=says) as caught:
        read_card(folder)
    assert CARD in str(caught.value)


def test_no_folder_and_no_card_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="there is no folder"):
        read_card(tmp_path / "nowhere")
    with pytest.raises(CardError, match=r"has no specialist.toml; `brain specialists new NAME`"):
        read_card(tmp_path)
