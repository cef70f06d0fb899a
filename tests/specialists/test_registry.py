"""Specialists by name and by path: a name never means a folder, and no folder's code runs before it is trusted."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from specialists import (
    CardError,
    Certificate,
    DefinitionError,
    ModelRejected,
    UnknownSpecialist,
    UntrustedFolder,
    calibrate,
    load,
    names,
    registry,
)
from specialists.card import CARD, seal
from specialists.certificates import CERTIFICATE, folder_digest
from specialists.registry import find, folder_of

from .folders import of_task

CODE = """\
from pathlib import Path
from specialists import specialist
from .words import HELLO

Path({canary!r}).write_text("the code ran")

@specialist
def {name}(who: str) -> str:
    \"\"\"Greet.\"\"\"
    return f"{{HELLO}} {{who}}"

def correct(arguments, expected, value):
    return value.endswith(arguments["who"])

number = 5
"""

CARD_TEXT = """\
format = 1
name = "{name}"
version = "0.1.0"
description = "Greets."
function = "{function}"
"""


def write(folder: Path, *, name: str = "greeter", function: str = "code:greeter", more: str = "") -> Path:
    folder.mkdir(parents=True)
    canary = str(folder.parent / "canary")
    (folder / "code.py").write_text(CODE.format(name="greeter", canary=canary))
    (folder / "words.py").write_text('HELLO = "Hello"\n')
    (folder / CARD).write_text(CARD_TEXT.format(name=name, function=function) + more)
    seal(folder)
    return folder


@pytest.fixture(autouse=True)
def clean_modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("_specialist_", "installed_")):
            del sys.modules[name]


def test_an_untrusted_folder_is_read_but_not_run(tmp_path: Path) -> None:
    folder = write(tmp_path / "greeter")
    for path in (folder, str(folder)):
        with pytest.raises(UntrustedFolder, match="trust=True"):
            load(path)
    assert not (tmp_path / "canary").exists()
    assert load(folder, trust=True).solve_sync("you").value == "Hello you"
    assert (tmp_path / "canary").exists()


def test_a_changed_file_is_refused_before_trust_is_asked(tmp_path: Path) -> None:
    folder = write(tmp_path / "greeter")
    (folder / "words.py").write_text('HELLO = "Bye"\n')
    for trust in (False, True):
        with pytest.raises(ModelRejected, match=r"'words.py'"):
            load(folder, trust=trust)
    assert not (tmp_path / "canary").exists()


def test_a_change_that_is_sealed_is_loaded_anew(tmp_path: Path) -> None:
    folder = write(tmp_path / "greeter")
    first = load(folder, trust=True)
    assert load(folder, trust=True) is first
    (folder / "words.py").write_text('HELLO = "Good morning"\n')
    seal(folder)
    assert load(folder, trust=True).solve_sync("you").value == "Good morning you"
    assert first.solve_sync("you").value == "Hello you"


def test_two_folders_of_one_name_do_not_mix(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one" / "greeter"), write(tmp_path / "two" / "greeter")
    (two / "words.py").write_text('HELLO = "Servus"\n')
    seal(two)
    assert load(one, trust=True).solve_sync("x").value == "Hello x"
    assert load(two, trust=True).solve_sync("x").value == "Servus x"


def test_a_name_never_means_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "greeter")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownSpecialist, match=r"no specialist 'greeter'; known are .*'\./greeter'"):
        load("greeter", trust=True)
    assert load("./greeter", trust=True).name == "greeter"


@pytest.mark.parametrize("name", ["", ".", "..", "nowhere", "a\0b", "zoo", "sudoku ", "*", "x" * 5000])
def test_an_unknown_name_is_named_with_the_known_ones(name: str) -> None:
    for look in (load, folder_of):
        with pytest.raises(UnknownSpecialist, match="known are"):
            look(name)


def test_a_folder_that_is_none_says_so(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="there is no folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(CardError, match=r"has no specialist.toml"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ({"function": "code:nothing"}, "'code:nothing' cannot be imported"),
        ({"function": "nothing:greeter"}, "'nothing:greeter' cannot be imported"),
        ({"function": "code:number"}, "not a specialist; decorate it"),
        ({"name": "other"}, "the card's name is 'other', the function's 'greeter'"),
        ({"more": 'correct = "code:number"\n'}, "is not a function"),
        ({"more": 'correct = "code:nothing"\n'}, "cannot be imported"),
    ],
)
def test_a_card_that_does_not_fit_its_code_is_refused(tmp_path: Path, declared: dict, says: str) -> None:
    with pytest.raises(CardError, match=says):
        load(write(tmp_path / "greeter", **declared), trust=True)


@pytest.mark.parametrize("line", ["1 / 0", "import sys; sys.exit(3)", "this is not Python", "import no_such_module"])
def test_code_that_cannot_be_imported_is_a_typed_error(tmp_path: Path, line: str) -> None:
    folder = write(tmp_path / "greeter")
    (folder / "words.py").write_text(f"{line}\n")
    seal(folder)
    with pytest.raises(CardError, match="cannot be imported"):
        load(folder, trust=True)
    (folder / "words.py").write_text('HELLO = "Hello"\n')
    seal(folder)
    assert load(folder, trust=True).name == "greeter"


def test_correct_comes_with_the_folder(tmp_path: Path) -> None:
    found = find(write(tmp_path / "greeter", more='correct = "code:correct"\n'), trust=True)
    assert found.correct is not None
    assert found.correct({"who": "you"}, None, "Hello you")
    assert found.card is not None
    assert (found.card.name, found.folder) == ("greeter", tmp_path / "greeter")


class Installer:
    """A site-packages of our own, with entry points."""

    def __init__(self, site: Path) -> None:
        self.site = site

    def __call__(self, distribution: str, **entries: str) -> None:
        info = self.site / f"{distribution}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        lines = "\n".join(f"{name} = {value}" for name, value in entries.items())
        (info / "entry_points.txt").write_text(f"[specialists]\n{lines}\n")
        importlib.invalidate_caches()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installer:
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    return Installer(site)


def test_an_installed_package_is_known_by_name(install: Installer, tmp_path: Path) -> None:
    write(install.site / "installed_one").joinpath("__init__.py").write_text("")
    seal(install.site / "installed_one")
    install("greeting-things", greeter="installed_one")
    assert names()["greeter"] == "greeting-things"
    assert folder_of("greeter") == install.site / "installed_one"
    assert not (install.site / "canary").exists()
    assert load("greeter").solve_sync("you").value == "Hello you"
    assert find("greeter").folder == install.site / "installed_one"
    (install.site / "installed_one" / "words.py").write_text("changed = 1\n")
    with pytest.raises(ModelRejected, match=r"words.py"):
        load("greeter")


def test_an_installed_function_needs_no_card(install: Installer) -> None:
    (install.site / "installed_two.py").write_text(
        "from specialists import specialist\n\n@specialist\ndef echo(x: str) -> str:\n    return x\n"
    )
    install("echoes", echo="installed_two:echo", shout="installed_two:echo")
    assert load("echo").solve_sync("a").value == "a"
    assert find("echo").card is None
    with pytest.raises(DefinitionError, match=r"'shout' brings the specialist 'echo'; make the two names one"):
        load("shout")


def test_an_entry_point_that_is_broken_is_named(install: Installer) -> None:
    (install.site / "installed_three.py").write_text("number = 5\n")
    (install.site / "installed_four.py").write_text("raise SystemExit(1)\n")
    (install.site / "installed_five").mkdir()
    install(
        "broken",
        number="installed_three:number",
        gone="installed_gone",
        exits="installed_four",
        bare="installed_five",
        alone="installed_three",
    )
    with pytest.raises(DefinitionError, match="not a specialist"):
        load("number")
    for name in ("gone", "exits"):
        with pytest.raises(UnknownSpecialist, match=f"'{name}'.*cannot be imported"):
            load(name)
    with pytest.raises(CardError, match=r"no __init__.py"):
        load("bare")
    with pytest.raises(CardError, match=r"no specialist.toml"):
        load("alone")


def test_what_is_bundled_comes_first(install: Installer) -> None:
    (install.site / "installed_six.py").write_text("raise SystemExit(1)\n")
    bundled = [name for name, where in names().items() if where == "bundled"]
    for name in bundled:
        install(f"impostor-{name}", **{name: "installed_six"})
        assert names()[name] == "bundled"
        assert load(name).name == name


def test_many_installed_names_are_read_once_and_a_wrong_one_lists_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    entry_points = registry.entry_points

    def counted(**wanted: Any) -> Any:
        read.append(1)
        return entry_points(**wanted)

    monkeypatch.setattr(registry, "entry_points", counted)
    info = tmp_path / "many-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: many\nVersion: 1.0\n")
    lines = "\n".join(f"part_{number} = many_parts:part_{number}" for number in range(300))
    (info / "entry_points.txt").write_text(f"[specialists]\n{lines}\n")
    (tmp_path / "many_parts.py").write_text(
        "from specialists import specialist\n"
        "def made(number):\n"
        "    def part(text: str) -> str:\n"
        "        return text\n"
        "    return specialist(name=f'part_{number}', description='A part.')(part)\n"
        "globals().update({f'part_{number}': made(number) for number in range(300)})\n"
    )
    (tmp_path / "__pycache__").mkdir()  # importing makes it, and a folder that changes is read anew
    monkeypatch.syspath_prepend(str(tmp_path))
    known = registry.names()
    assert known["part_299"] == "many"
    assert all(registry.load(f"part_{number}").name == f"part_{number}" for number in range(300))
    assert sum(read) == 1
    with pytest.raises(UnknownSpecialist, match=rf"of the {len(known)} known the nearest are part_.*") as caught:
        registry.load("prat_299")
    assert len(str(caught.value)) < 400

    other = tmp_path / "one-1.0.dist-info"  # installed while the process runs
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: one\nVersion: 1.0\n")
    (other / "entry_points.txt").write_text("[specialists]\npart_one = many_parts:part_1\n")
    assert registry.names()["part_one"] == "one"


def test_what_is_imported_is_what_was_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is exchanged after the look at it, and before its import, is not run."""
    from specialists import registry

    folder = write(tmp_path / "greeter")
    evil = f"from pathlib import Path\nPath({str(tmp_path / 'evil')!r}).write_text('it ran')\nHELLO = 'Evil'\n"
    real = registry.verify_files

    def verify(*arguments: object, **options: object) -> dict[str, bytes]:
        sources = real(*arguments, **options)  # type: ignore[arg-type]
        (folder / "words.py").write_text(evil)
        return sources

    monkeypatch.setattr(registry, "verify_files", verify)
    assert load(folder, trust=True).solve_sync("you").value == "Hello you"
    assert not (tmp_path / "evil").exists()


def test_compiled_files_that_no_card_lists_are_not_run(tmp_path: Path) -> None:
    """Python itself would take ``__pycache__`` for the source when it says it is of the same time and size."""
    folder = write(tmp_path / "greeter")
    evil = tmp_path / "evil.py"
    evil.write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).write_text('it ran')\nHELLO = 'Evil'\n")
    info = (folder / "words.py").stat()
    code = importlib._bootstrap_external._code_to_timestamp_pyc(  # type: ignore[attr-defined]
        compile(evil.read_text(), "words.py", "exec"), int(info.st_mtime), info.st_size
    )
    compiled = Path(importlib.util.cache_from_source(str(folder / "words.py")))
    compiled.parent.mkdir()
    compiled.write_bytes(code)
    (folder / "build").mkdir()
    (folder / "build" / "words.py").write_text(evil.read_text())
    assert load(folder, trust=True).solve_sync("you").value == "Hello you"
    assert not (tmp_path / "ran").exists()
    package = load(folder, trust=True).function.__module__
    with pytest.raises(ModuleNotFoundError, match="the card lists no such file"):
        importlib.import_module(f"{package.partition('.')[0]}.build.words")


def test_a_folders_own_packages_are_imported_and_know_their_place(tmp_path: Path) -> None:
    folder = tmp_path / "greeter"
    write(folder)
    (folder / "inner" / "deep").mkdir(parents=True)
    (folder / "inner" / "__init__.py").write_text("from .deep.place import WHERE\n")
    (folder / "inner" / "deep" / "place.py").write_text("from pathlib import Path\nWHERE = Path(__file__).parent\n")
    (folder / "words.py").write_text("from .inner import WHERE\nHELLO = (WHERE / 'hello.txt').read_text()\n")
    (folder / "inner" / "deep" / "hello.txt").write_text("Moin")
    seal(folder)
    s = load(folder, trust=True)
    assert s.solve_sync("you").value == "Moin you"
    import inspect

    assert "def greeter" in inspect.getsource(s.function)
    assert not list(folder.rglob("__pycache__"))


def test_27_hard_links_are_refused_in_a_folder_and_not_in_an_installed_package(
    install: Installer, tmp_path: Path
) -> None:
    folder = write(tmp_path / "greeter")
    os.link(folder / "words.py", tmp_path / "second")
    for trust in (False, True):
        with pytest.raises(ModelRejected, match=r"'words.py' has a second name \(a hard link\)"):
            load(folder, trust=trust)
    package = write(install.site / "installed_linked")
    (package / "__init__.py").write_text("")
    seal(package)
    install("linked", greeter="installed_linked")
    os.link(package / "words.py", tmp_path / "cache of uv")
    assert load("greeter").solve_sync("you").value == "Hello you"


@pytest.mark.skipif(sys.platform != "linux", reason="children are limited on Linux only")
def test_an_installed_package_may_do_without_code(install: Installer) -> None:
    package = of_task(install.site / "installed_mood")
    (package / "__init__.py").write_text("")
    seal(package)
    install("moods", mood="installed_mood")
    assert load("mood").solve_sync("so happy").value.label == "glad"
    assert find("mood").folder == package


# Certificates.


def certify(folder: Path) -> Certificate:
    """A certificate for the greeter in ``folder``, made by its own judge."""
    found = find(folder, trust=True)
    rows = [{"input": {"who": f"you {number}"}} for number in range(60)]
    made = calibrate(found.specialist, rows, alpha=0.1, correct=found.correct, folder=folder_digest(folder)).certificate
    made.write(folder / CERTIFICATE)
    return made


def state(folder: Path | str) -> tuple[str, str | None]:
    found = load(folder, trust=True).certificate_state()
    return found.status, found.reason


def test_a_certificate_comes_with_the_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "greeter", more='correct = "code:correct"\n')
    assert state(folder) == ("missing", "none was made")
    made = certify(folder)
    assert state(folder) == ("valid", None)
    assert load(folder, trust=True).certificate == made
    outcome = load(folder, trust=True).under("certified").solve_sync("you")
    assert (outcome.value, outcome.accepted_by) == ("Hello you", "certified")
    # It lies beside what the card lists, and takes no part in the card.
    assert CERTIFICATE not in seal(folder).files
    assert state(folder) == ("valid", None)


def test_of_a_changed_folder_it_is_void_and_of_the_old_one_valid(tmp_path: Path) -> None:
    folder = write(tmp_path / "greeter", more='correct = "code:correct"\n')
    certify(folder)
    loaded = load(folder, trust=True)
    (folder / "words.py").write_text('HELLO = "Good morning"\n')
    seal(folder)
    assert state(folder) == ("void", "the folder's files are not those that it was made with")
    assert loaded.certificate_state().status == "valid"
    assert loaded.solve_sync("you").value == "Hello you"
    (folder / "words.py").write_text('HELLO = "Hello"\n')
    seal(folder)
    assert state(folder) == ("valid", None)


def test_a_certificate_moves_with_its_folder_and_into_no_other(tmp_path: Path) -> None:
    one = write(tmp_path / "one" / "greeter", more='correct = "code:correct"\n')
    certify(one)
    moved = one.rename(tmp_path / "greeter")
    assert state(moved) == ("valid", None)
    two = write(tmp_path / "two" / "greeter", more='correct = "code:correct"\n')
    (two / "words.py").write_text('HELLO = "Servus"\n')
    seal(two)
    (two / CERTIFICATE).write_bytes((moved / CERTIFICATE).read_bytes())
    assert state(two)[0] == "void"


def test_an_installed_package_has_a_certificate_too(install: Installer, tmp_path: Path) -> None:
    package = write(install.site / "installed_greeter", more='correct = "code:correct"\n')
    (package / "__init__.py").write_text("")
    seal(package)
    install("greetings", greeter="installed_greeter")
    found = find("greeter")
    rows = [{"input": {"who": f"you {number}"}} for number in range(60)]
    made = calibrate(found.specialist, rows, alpha=0.1, correct=found.correct, folder=folder_digest(package))
    made.certificate.write(package / CERTIFICATE)
    assert state("greeter") == ("valid", None)


@pytest.mark.parametrize("where", ["a folder", "a link", "a pipe"])
def test_what_lies_in_a_certificates_place_is_warned_of(
    tmp_path: Path, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write(tmp_path / "greeter", more='correct = "code:correct"\n')
    certify(folder)
    path = folder / CERTIFICATE
    path.rename(tmp_path / "real.json")
    if where == "a folder":
        path.mkdir()
    elif where == "a link":
        path.symlink_to(tmp_path / "real.json")
    else:
        os.mkfifo(path)
    assert state(folder) == ("missing", "none was made")
    assert "as if there were none" in caplog.text


def test_generate_comes_with_the_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "greeter", more='generate = "code:correct"\n')
    assert callable(find(folder, trust=True).generate)
    other = write(tmp_path / "other" / "greeter", more='generate = "code:number"\n')
    with pytest.raises(CardError, match="generate 'code:number' is not a function"):
        find(other, trust=True)
