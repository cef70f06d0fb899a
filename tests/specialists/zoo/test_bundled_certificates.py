"""The bundled specialists' certificates: they hold for the files beside them, and the cards tell their numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

import specialists
from specialists import load, read_certificate
from specialists.certificates import folder_digest

ZOO = Path(specialists.__file__).parent / "zoo"
NAMES = sorted(path.parent.name for path in ZOO.glob("*/specialist.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_it_holds_for_what_is_bundled(name: str) -> None:
    certificate = read_certificate(ZOO / name)
    assert certificate is not None
    assert certificate.folder == folder_digest(ZOO / name)
    # CLINC150 has one test split, and it was looked at before; of generated cases there are always new ones.
    assert (certificate.uses > 0) == (name == "intent")
    assert load(name).certificate_state().status == "valid"
    assert load(name).certificate_state("a group of its own").status == "missing"


@pytest.mark.parametrize("name", NAMES)
def test_the_card_says_what_it_says(name: str) -> None:
    certificate = read_certificate(ZOO / name)
    assert certificate is not None
    readme = (ZOO / name / "README.md").read_text("utf-8")
    assert f"> {certificate.sentence()}\n" in readme
    assert f"\n{certificate.command}\n" in readme
