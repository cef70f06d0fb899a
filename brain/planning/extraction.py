"""Typed arguments for a tool from a request's own words.

Every argument is copied from the request or is a normal form of something there (a date rewritten, 5 % as 0.05): none
is made up, and a parameter the request says nothing about is left out or reported missing. Each parameter has scored
candidates; a beam search gives each a candidate of its own so that the sum is best. Knows nothing of which tool fits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..words import FAINT
from .candidates import flags, options
from .cues import Candidate, cue
from .parameters import Parameter
from .quantities import numbers
from .spans import Reading
from .texts import texts

__all__ = ["Extraction", "coordinated", "extract"]

_REQUIRED_FLOOR = 0.22
_OPTIONAL_FLOOR = 0.62
_FIELD_FLOOR = 0.45
_SKIP = -0.6
_ORDER = 0.1
_BEAM = 48
_PER_PARAMETER = 10


@dataclass(frozen=True, slots=True)
class Extraction:
    """The arguments found, how sure each is (0 .. 1), the required ones not found, and the stretches they came from."""

    arguments: Mapping[str, Any]
    confidence: Mapping[str, float]
    missing: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    chosen: Mapping[str, Candidate] = field(default_factory=dict)
    """By parameter, where its value stands in the request."""


@dataclass(frozen=True)
class _State:
    score: float = 0.0
    chosen: tuple[tuple[Parameter, Candidate], ...] = ()
    taken: tuple[Candidate, ...] = ()
    last: Mapping[str, int] = field(default_factory=dict)


def extract(
    reading: Reading, parameters: Sequence[Parameter], known: frozenset[str] = frozenset(), *, whole_text: bool = True
) -> Extraction:
    """The arguments for ``parameters`` in ``reading``. ``known``: stems of the tool's name and description.

    ``whole_text``: where a tool's only text parameter asks for a text and the request quotes none, the request is it.
    """
    leaves = list(_leaves(parameters))
    state = _assign(reading, leaves, known)
    chosen = list(state.chosen)
    if whole_text and not any(leaf.kind == "string" for leaf, _ in chosen):
        last_resort = _whole_text(reading, leaves, known)
        chosen += [last_resort] if last_resort else []
    arguments: dict[str, Any] = {}
    confidence: dict[str, float] = {}
    for leaf, candidate in sorted(chosen, key=lambda pair: leaves.index(pair[0])):
        target = arguments
        for part in leaf.path[:-1]:
            target = target.setdefault(part, {})
        target[leaf.name] = candidate.value
        top = leaf.path[0]
        confidence[top] = min(confidence.get(top, 1.0), max(0.0, min(1.0, candidate.score)))
    missing = [p.name for p in parameters if p.required and p.name not in arguments]
    found = {leaf.path for leaf, _ in chosen}
    places = {leaf.path[0]: candidate for leaf, candidate in chosen}
    for leaf in leaves:
        top = leaf.path[0]
        if len(leaf.path) > 1 and leaf.required and leaf.path not in found and top in arguments:
            missing.append(".".join(leaf.path))
    return Extraction(arguments, confidence, tuple(missing), tuple((c.start, c.end) for _, c in chosen), places)


_AND = re.compile(
    r"[\"'”’)]?\s*(?:,|,?\s*and|,?\s*as well as|&)\s*(?:also\s+)?(?:the\s+)?(?P<word>[a-z]+\s+)?[\"'“‘(]?",
    re.IGNORECASE,
)
_MOST = 8


def coordinated(reading: Reading, parameters: Sequence[Parameter], found: Extraction) -> list[dict[str, Any]]:
    """Arguments for several calls, where the request joins one value to others: ``in Paris and in Rome``; else none.

    Only where one required parameter has a value that is joined to others of its own sort which no parameter took.
    """
    taken = list(found.chosen.values())
    for parameter in parameters:
        first = found.chosen.get(parameter.name)
        if not parameter.required or first is None or parameter.kind not in ("string", "integer", "number"):
            continue
        if first.source == "whole" or first.score < 0.3 or reading.word_before(first.start) == "between":
            continue
        others = [
            c
            for c in _choices(reading, parameter, frozenset(), 40)
            if c.source == first.source
            and _same_looks(c.value, first.value)
            and c.value != first.value
            and not any(c.start < other.end and other.start < c.end for other in taken)
        ]
        ordered = sorted([first, *others], key=lambda c: (c.start, -c.score))
        for head in ordered[: ordered.index(first) + 1]:
            row = _row(reading, head, ordered)
            if len(row) > 1 and first in row:
                return [{**found.arguments, parameter.name: candidate.value} for candidate in row]
    return []


def _row(reading: Reading, head: Candidate, ordered: Sequence[Candidate]) -> list[Candidate]:
    """``head`` and what the request joins to it."""
    row = [head]
    joints: list[str] = []
    for candidate in ordered:
        if len(row) >= _MOST or candidate.start < row[-1].end:
            continue
        between = reading.text[row[-1].end : candidate.start]
        joined = _AND.fullmatch(between) if len(between) < 40 else None
        word = (joined["word"] or "").strip().lower() if joined else ""
        if joined is None or (word and word != reading.word_before(head.start)):
            continue
        row.append(candidate)
        joints.append("and" if word or re.search(r"(?i)\band\b|&|as well", between) else ",")
    return _listed(row, joints)


def _listed(row: list[Candidate], joints: Sequence[str]) -> list[Candidate]:
    """The members of a list: ``a, b and c``. A comma alone adds no member: ``Miami, Florida`` is one place."""
    if joints == [",", "and", ","]:
        return row[::2]  # "Paris, France and Rome, Italy"
    return row if joints and joints[-1] == "and" else row[:1]


def _same_looks(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    return not isinstance(one, str) or (
        one[:1].isupper() == other[:1].isupper() and one[:1].isalpha() == other[:1].isalpha()
    )


def _leaves(parameters: Sequence[Parameter]) -> Iterator[Parameter]:
    """The parameters that take one value each: objects with known fields are opened."""
    for parameter in parameters:
        if parameter.kind == "object" and parameter.fields:
            yield from _leaves(parameter.fields)
        else:
            yield parameter


def _assign(reading: Reading, leaves: Sequence[Parameter], known: frozenset[str]) -> _State:
    beam = [_State()]
    groups = _grouped(leaves)
    choices = {
        leaf.path: [replace(c, group=groups.get(leaf.path, "")) for c in _choices(reading, leaf, known)]
        for leaf in leaves
    }
    # required parameters first, those with few candidates before those with many, so that nothing optional or vague
    # takes the only value a required one could have
    for leaf in leaves:
        floor = _REQUIRED_FLOOR if leaf.required else _OPTIONAL_FLOOR if len(leaf.path) == 1 else _FIELD_FLOOR
        grown: list[_State] = []
        for state in beam:
            grown.append(_State(state.score + (_SKIP if leaf.required else 0.0), state.chosen, state.taken, state.last))
            for candidate in choices[leaf.path]:
                if candidate.score < floor or _overlaps(candidate, state.taken):
                    continue
                kind = candidate.source if candidate.source in ("number", "date", "time") else leaf.kind
                family = " ".join(leaf.family)
                before = state.last.get(family, state.last.get(kind, 0))
                gain = candidate.score if leaf.required else candidate.score - floor + 0.1
                if candidate.start >= before:
                    gain += _ORDER
                holds = candidate.exclusive or candidate.group
                taken = (*state.taken, candidate) if holds else state.taken
                grown.append(
                    _State(
                        state.score + gain,
                        (*state.chosen, (leaf, candidate)),
                        taken,
                        {**state.last, kind: candidate.start, family: candidate.start},
                    )
                )
        grown.sort(key=lambda state: -state.score)
        beam = grown[:_BEAM]
    return beam[0]


def _overlaps(candidate: Candidate, taken: Sequence[Candidate]) -> bool:
    return any(
        ((candidate.exclusive and other.exclusive) or (candidate.group and candidate.group == other.group))
        and candidate.start < other.end
        and other.start < candidate.end
        for other in taken
    )


def _grouped(leaves: Sequence[Parameter]) -> dict[tuple[str, ...], str]:
    """The group of each parameter that shares its closed list of options with another: one mention fills only one."""
    members: dict[str, list[tuple[str, ...]]] = {}
    for leaf in leaves:
        if leaf.is_closed:
            members.setdefault(repr([option.value for option in leaf.options]), []).append(leaf.path)
    return {path: group for group, paths in members.items() if len(paths) > 1 for path in paths}


def _choices(reading: Reading, leaf: Parameter, known: frozenset[str], most: int = _PER_PARAMETER) -> list[Candidate]:
    found = [*_paired(reading, leaf), *_candidates(reading, leaf, known)]
    found.sort(key=lambda candidate: (-candidate.score, candidate.start))
    kept: list[Candidate] = []
    for candidate in found:
        if not any(k.start == candidate.start and k.end == candidate.end and k.value == candidate.value for k in kept):
            kept.append(candidate)
        if len(kept) >= most:
            break
    return kept


def _candidates(reading: Reading, leaf: Parameter, known: frozenset[str]) -> list[Candidate]:
    if leaf.kind in ("integer", "number"):
        return options(reading, leaf) if leaf.is_closed else numbers(reading, leaf)
    if leaf.kind == "boolean":
        return flags(reading, leaf)
    if leaf.kind == "array":
        return _arrays(reading, leaf, known)
    if leaf.kind == "object":
        return _objects(reading, leaf)
    if leaf.kind == "any":
        return [*texts(reading, leaf, known), *numbers(reading, leaf)]
    return texts(reading, leaf, known)


def _paired(reading: Reading, leaf: Parameter) -> list[Candidate]:
    """``a = 2``, ``name: Ann``: the request names the parameter outright."""
    found = []
    for key, value, start, end in reading.pairs:
        tail = re.findall(r"[^\W_]+", key.lower())[-len(leaf.words) :]
        if key.lower() != leaf.name.lower() and "".join(tail) != leaf.name.lower().replace("_", ""):
            continue
        typed = _typed(value, leaf)
        if typed is not None:
            found.append(Candidate(typed, 1.0, start, end, source="number" if leaf.is_numeric else "pair"))
    return found


def _typed(value: str, leaf: Parameter) -> Any:
    if leaf.kind in ("integer", "number"):
        match = re.fullmatch(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d{1,2})?", value, re.IGNORECASE)
        if not match:
            return None
        number = float(value)
        return int(number) if number.is_integer() else number if leaf.kind == "number" else None
    if leaf.kind == "string" and not leaf.options and not leaf.pattern and leaf.role not in ("date", "time"):
        return value or None
    return None


def _objects(reading: Reading, leaf: Parameter) -> list[Candidate]:
    found = [Candidate(s.value, 0.8, s.start, s.end) for s in reading.literals if isinstance(s.value, dict)]
    pairs = reading.pairs
    if not found and len(pairs) > 1:
        found.append(Candidate({key: value for key, value, _, _ in pairs}, 0.5, pairs[0][2], pairs[-1][3]))
    return found


def _arrays(reading: Reading, leaf: Parameter, known: frozenset[str]) -> list[Candidate]:
    item = leaf.item
    found: list[Candidate] = []
    starts = frozenset(s.start for s in reading.literals)
    for span in reading.literals:
        value = _fitting_list(span.value, item)
        if value is not None:
            left, right = cue(reading, span.start, span.end, leaf, starts - {span.start})
            found.append(Candidate(value, 0.75 + 0.25 * max(left, right), span.start, span.end, source="list"))
    if item is None or item.kind in ("array", "object", "boolean"):
        return found
    if item.is_closed:
        return found + _several_options(reading, item)
    singles = numbers(reading, item) if item.is_numeric else texts(reading, item, known)
    singles = [c for c in singles if c.score > 0.05 and not any(s.start <= c.start < s.end for s in reading.literals)]
    for run in _runs(reading, singles):
        score = max(c.score for c in run) + (0.15 if len(run) > 1 else -0.12)
        found.append(Candidate([c.value for c in run], score, run[0].start, run[-1].end, source="list"))
    return found


def _several_options(reading: Reading, item: Parameter) -> list[Candidate]:
    names = [n for n in reading.names if " " in n.value]
    hits = [c for c in options(reading, item) if c.score > 0.4]
    hits = [c for c in hits if not any(n.start <= c.start and c.end < n.end for n in names)] or hits
    if not hits:
        return []
    exact = [c for c in hits if c.score >= 0.8]  # a synonym counts only where nothing is said outright
    hits = sorted(exact or hits, key=lambda c: c.start)
    return [
        Candidate([c.value for c in hits], max(c.score for c in hits), hits[0].start, hits[-1].end, exclusive=False)
    ]


def _fitting_list(value: Any, item: Parameter | None) -> list[Any] | None:
    """``value`` as a list of the item's type, or ``None``."""
    if not isinstance(value, list):
        return [value] if isinstance(value, dict) and item is not None and item.kind == "object" else None
    if item is None or item.kind == "any":
        return value
    if item.kind == "array":
        inner = [_fitting_list(part, item.item) for part in value]
        return None if any(part is None for part in inner) else inner
    if item.kind == "object":
        return value if all(isinstance(part, dict) for part in value) else None
    if item.kind == "integer":
        whole = all(
            isinstance(part, (int, float)) and not isinstance(part, bool) and float(part).is_integer() for part in value
        )
        return [int(part) for part in value] if whole else None
    if item.kind == "number":
        return value if all(isinstance(part, (int, float)) and not isinstance(part, bool) for part in value) else None
    if item.kind == "boolean":
        return value if all(isinstance(part, bool) for part in value) else None
    return None if any(isinstance(part, (list, dict)) for part in value) else [str(part) for part in value]


_JOINED = re.compile(
    r"\s*(?:,|;|/|&|and|or|,\s*and|,\s*or|as well as|along with)\s*(?:(?:also|the|a|an|then)\s+)?\$?\s*$"
)


def _runs(reading: Reading, singles: Sequence[Candidate]) -> Iterator[list[Candidate]]:
    """Candidates that the request joins by commas and ``and``, and each alone."""
    ordered = sorted(singles, key=lambda c: (c.start, -c.end))
    by_start: dict[int, list[Candidate]] = {}
    for candidate in ordered:
        by_start.setdefault(candidate.start, []).append(candidate)
    used: set[int] = set()
    for first in ordered:
        yield [first]
        if first.start in used:
            continue
        run = [first]
        for following in ordered:
            if following.start < run[-1].end or (following.source == "quote") != (first.source == "quote"):
                continue
            between = reading.head[run[-1].end : following.start]
            if len(between) > 24 or not _JOINED.fullmatch(between):
                if following.start - run[-1].end > 24:
                    break
                continue
            run.append(following)
            used.add(following.start)
        if len(run) > 1:
            yield run


def _whole_text(
    reading: Reading, leaves: Sequence[Parameter], known: frozenset[str]
) -> tuple[Parameter, Candidate] | None:
    """The request itself for a tool that asks for a text and nothing else in words."""
    wanting = [leaf for leaf in leaves if leaf.required and leaf.kind == "string"]
    if len(wanting) != 1 or wanting[0].role != "text" or wanting[0].pattern or wanting[0].options:
        return None
    said = [t.stem for t in reading.tokens if t.is_content and t.lower not in FAINT]
    if said and sum(word in known for word in said) * 2 >= len(said):
        return None  # it speaks of the tool, and is not what the tool is to read
    text = reading.text.strip()
    return (wanting[0], Candidate(text, 0.35, 0, len(reading.text), exclusive=False, source="whole")) if text else None
