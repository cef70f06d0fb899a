"""Tools described when they are looked at, and found without looking at them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from brain import tool
from brain.catalogue import Catalogue
from brain.events import ToolSchema
from specialists import specialist


class Costly:
    """A tool that counts how often its schema is made."""

    def __init__(self, name: str, description: str) -> None:
        self.name = name
        self.description = description
        self.made = 0

    @property
    def parameters(self) -> Mapping[str, Any]:
        self.made += 1
        return {"type": "object", "properties": {}}

    @property
    def returns(self) -> None:
        return None


TOOLS = [Costly("paint_wall", "Paint a wall."), Costly("cut_hedge", "Cut a hedge."), Costly("mow_lawn", "Mow a lawn.")]


@pytest.fixture
def catalogue() -> Catalogue:
    for each in TOOLS:
        each.made = 0
    return Catalogue(TOOLS)


def test_names_length_and_search_describe_nothing(catalogue: Catalogue) -> None:
    assert len(catalogue) == 3
    assert catalogue.names == ("paint_wall", "cut_hedge", "mow_lawn")
    assert catalogue.best("cut the hedge", 2) == [1]
    assert "3 tools, 0 of them described" in repr(catalogue)
    assert [each.made for each in TOOLS] == [0, 0, 0]


def test_a_tool_is_described_once_and_stays_the_same_object(catalogue: Catalogue) -> None:
    assert catalogue[1] is catalogue[1] is catalogue[-2] is list(catalogue)[1]
    assert catalogue[1] == ToolSchema("cut_hedge", "Cut a hedge.", {"type": "object", "properties": {}})
    assert catalogue[:2] == (catalogue[0], catalogue[1])
    assert [each.made for each in TOOLS] == [1, 1, 1]
    with pytest.raises(IndexError):
        catalogue[3]


def test_schemas_tools_and_specialists_are_described_alike() -> None:
    @tool
    def shout(text: str) -> str:
        """Say it loud."""
        return text.upper()

    @specialist
    async def whisper(text: str) -> str:
        """Say it softly."""
        return text.lower()

    schema = ToolSchema("sing", "Sing it.", {})
    catalogue = Catalogue([shout, whisper, schema])
    assert catalogue[0] == shout.schema
    assert catalogue[1] == ToolSchema("whisper", "Say it softly.", whisper.parameters, {"type": "string"})
    assert catalogue[2] is schema
