"""The bytes of a model file: which files are read at all, and that the bytes hashed are the bytes given."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from specialists import CardError, ModelRejected
from specialists.files import FileProblem, is_plain_name, open_plain, read_plain
from specialists.model_files import read_model

needs_links = pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links on this system")

CARD_TEXT = """format = 1
name = "double"
version = "1"
description = "Doubles."
function = "double:double"
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(b"the weights")
    return path


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(b"canary")
    return path


def refused(*arguments: object, **options: object) -> str:
    with pytest.raises(ModelRejected) as caught:
        read_model(*arguments, **options)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "canary" not in text
    assert hashlib.sha256(b"canary").hexdigest() not in text
    assert "\n" not in text
    return text


def test_gives_the_bytes(model: Path) -> None:
    assert read_model(model) == b"the weights"
    assert read_model(str(model)) == b"the weights"
    assert read_model("model.onnx", within=model.parent) == b"the weights"


def test_28_the_hash_is_of_the_bytes_given(model: Path) -> None:
    digest = hashlib.sha256(b"the weights").hexdigest()
    assert read_model(model, sha256=digest.upper()) == b"the weights"
    assert "not the one asked for" in refused(model, sha256="0" * 64)
    card = model.parent / "specialist.toml"
    card.write_text(CARD_TEXT)
    assert read_model(model) == b"the weights"  # not sealed yet
    card.write_text(f'{CARD_TEXT}[files]\n"model.onnx" = "{digest}"\n')
    assert read_model(model) == read_model("model.onnx", within=model.parent) == b"the weights"
    card.write_text(f'{CARD_TEXT}[files]\n"model.onnx" = "{"0" * 64}"\n')
    assert "not the one its card names" in refused(model)
    assert "not the one its card names" in refused("model.onnx", within=model.parent)
    card.write_text("no card")
    with pytest.raises(CardError):
        read_model(model)


def test_28_a_file_in_an_inner_folder_is_looked_up_by_its_whole_name(model: Path) -> None:
    inner = model.parent / "inner" / "model.onnx"
    inner.parent.mkdir()
    inner.write_bytes(b"other weights")
    digest = hashlib.sha256(b"other weights").hexdigest()
    (model.parent / "specialist.toml").write_text(f'{CARD_TEXT}[files]\n"inner/model.onnx" = "{digest}"\n')
    assert read_model("inner/model.onnx", within=model.parent) == b"other weights"
    assert "not the one its card names" in refused("model.onnx", within=model.parent)


def test_28_an_empty_file_and_a_large_one_are_refused(model: Path) -> None:
    assert "has 11 bytes, which is more than the 10 allowed" in refused(model, limit=10)
    with model.open("wb") as file:
        file.truncate(3 * 1024**3)  # no bytes on the disk
    assert "more than the 2,147,483,648 allowed" in refused(model)
    model.write_bytes(b"")
    assert "is empty" in refused(model)
    model.unlink()
    assert "cannot be read: No such file" in refused(model)


@needs_links
def test_27_a_link_is_never_followed(model: Path, secret: Path) -> None:
    model.unlink()
    model.symlink_to(secret)
    for options in ({}, {"hard_links": True}, {"sha256": hashlib.sha256(b"canary").hexdigest()}):
        assert "is a link" in refused(model, **options)
    assert "is a link" in refused("model.onnx", within=model.parent)


@needs_links
def test_27_a_parent_that_is_a_link_is_never_followed(model: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "model.onnx").write_bytes(b"canary")
    (model.parent / "inner").symlink_to(outside)
    assert "lies behind 'inner', which is a link" in refused("inner/model.onnx", within=model.parent)
    # The way to the folder is the caller's own.
    (tmp_path / "current").symlink_to(model.parent)
    assert read_model("model.onnx", within=tmp_path / "current") == b"the weights"
    assert read_model(tmp_path / "current" / "model.onnx") == b"the weights"


@pytest.mark.parametrize(
    "name", ["../secret", "inner/../../secret", "/etc/passwd", "", ".", "..", "a\\b", "C:model", "m:x", "a\0b", "a//b"]
)
def test_27_a_name_leads_nowhere_else(model: Path, secret: Path, name: str) -> None:
    assert not is_plain_name(name)
    with pytest.raises(FileProblem):
        open_plain(name, within=model.parent)
    if "//" not in name:  # a path has one separator where a name had two
        refused(name, within=model.parent)


@needs_links
def test_27_a_hard_link_is_refused_but_where_packages_are_installed(
    model: Path, secret: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.unlink()
    os.link(secret, model)
    assert "has a second name (a hard link)" in refused(model)
    assert "has a second name (a hard link)" in refused("model.onnx", within=model.parent)
    assert read_model(model, hard_links=True) == b"canary"
    # As uv and conda install: each file is also in their cache, and what is installed is trusted.
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "has a second name" in refused(model)
    (tmp_path / "package-1.0.dist-info").mkdir()
    assert read_model(model) == b"canary"
    assert "has a second name" in refused(model, hard_links=False)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_27_pipes_folders_and_devices_are_refused_and_not_waited_for(model: Path) -> None:
    model.unlink()
    os.mkfifo(model)
    assert "is not a file" in refused(model)
    model.unlink()
    model.mkdir()
    assert "is not a file" in refused(model)
    for device in ("/dev/zero", "/dev/null", "/dev/tty"):
        assert "is not a file" in refused(Path(device))


def test_27_a_device_or_a_pipe_put_there_in_between_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look saw a plain file; what is opened then is looked at again."""
    honest, first = os.stat(model), [True]
    real = os.stat

    def stat(path: object, **options: object) -> os.stat_result:
        return honest if first and str(path).endswith("model.onnx") else real(path, **options)  # type: ignore[call-overload]

    model.unlink()
    os.mkfifo(model)
    monkeypatch.setattr(os, "stat", stat)
    assert "is not a file" in refused(model)
    model.unlink()
    model.symlink_to("/dev/zero")
    assert "is a link" in refused(model)


@needs_links
def test_27_files_exchanged_while_they_are_read_are_never_loaded(model: Path, secret: Path) -> None:
    """One thread puts a link, a hard link, another file and the right one in turn; the other reads all the time."""
    folder, right = model.parent, hashlib.sha256(b"the weights").hexdigest()
    stop, rounds = threading.Event(), [0]

    def exchange() -> None:
        other = folder / "other"
        while not stop.is_set():
            other.symlink_to(secret)
            other.replace(model)
            os.link(secret, other)
            os.replace(other, model)
            other.write_bytes(b"wrong weights")
            other.replace(model)
            other.write_bytes(b"the weights")
            other.replace(model)
            rounds[0] += 1

    thread = threading.Thread(target=exchange)
    thread.start()
    loaded, said = 0, []
    try:
        while (loaded < 20 or len(said) < 20 or rounds[0] < 50) and loaded + len(said) < 100_000:
            try:
                assert read_model("model.onnx", within=folder, sha256=right) == b"the weights"
                loaded += 1
            except ModelRejected as error:
                said.append(str(error))
    finally:
        stop.set()
        thread.join()
    assert loaded
    assert said
    assert "canary" not in " ".join(said)


def test_a_file_that_grows_or_shrinks_while_it_is_read_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fstat

    class Changed:
        def __init__(self, info: os.stat_result, size: int) -> None:
            self.st_mode, self.st_nlink, self.st_size = info.st_mode, info.st_nlink, size
            self.st_dev, self.st_ino = info.st_dev, info.st_ino

    for size in (5, 50):
        with monkeypatch.context() as patch:
            patch.setattr(os, "fstat", lambda fd, size=size: Changed(real(fd), size))
            with pytest.raises(FileProblem, match="was altered while it was read"):
                read_plain(model)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no list of descriptors on this system")
def test_no_descriptor_is_left_open_and_none_is_inherited(model: Path, secret: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with open_plain("model.onnx", within=model.parent) as file:
        assert not os.get_inheritable(file.fileno())
    for _ in range(10):
        read_model("model.onnx", within=model.parent)
        refused("nothing.onnx", within=model.parent)
        refused("inner/nothing.onnx", within=model.parent)
        refused(model, limit=1)
    assert len(os.listdir("/proc/self/fd")) == before
