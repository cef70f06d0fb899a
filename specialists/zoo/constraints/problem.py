"""A problem in the form the network reads: the same conflicts always as the same few groups.

Who may not be equal to whom can be written in many ways: as pairs, as lists that overlap, as whole cliques. Here they
become one: as few groups as a quick greedy choice finds, each as large as it can be. Nothing is inferred: no value is
ruled out because a neighbour has it. This module knows nothing of the network, and needs numpy only for arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from specialists import CannotAnswer

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "BOXES",
    "MOST_VALUES",
    "MOST_VARIABLES",
    "NoSolution",
    "Problem",
    "Structure",
    "make",
    "structure",
    "sudoku_groups",
]

MOST_VALUES = 32
MOST_VARIABLES = 1024
"""What the model's file was made for."""

BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3), 16: (4, 4)}
"""Rows and columns of a box of a Sudoku, by the length of its side."""

Group = tuple[int, ...]


class NoSolution(CannotAnswer):
    """There is provably no answer: the variables ``members`` would all have to differ, or be what they cannot be."""

    def __init__(self, message: str, members: Group) -> None:
        super().__init__(f"there is no solution: {message}")
        self.members = members


class Structure(NamedTuple):
    """Who may not be equal to whom, without saying what anybody may be.

    ``groups``: the canonical groups, sorted, each a sorted tuple of variables. ``overlaps``: each set of two or more
    variables that two groups of exactly as many members as there are values have in common. ``conflicts``: for each
    variable, bits of those it may not be equal to.
    """

    groups: tuple[Group, ...]
    overlaps: tuple[Group, ...]
    conflicts: tuple[int, ...]


class Problem(NamedTuple):
    """One problem. ``allowed``: bool (variables, values), what each variable may be; of a given one only that."""

    values: int
    variables: int
    groups: tuple[Group, ...]
    overlaps: tuple[Group, ...]
    allowed: NDArray[Any]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """One row of the network's inputs but the carry, float32.

        ``allowed`` (1, variables, values), ``groups`` (1, groups, variables), ``overlaps`` (1, overlaps, variables);
        where there is no group, or no overlap, a row of zeros stands for none.
        """
        import numpy as np

        return {
            "allowed": np.asarray(self.allowed[None], np.float32),
            "groups": self._members(self.groups),
            "overlaps": self._members(self.overlaps),
        }

    def _members(self, sets: Sequence[Group]) -> NDArray[Any]:
        import numpy as np

        table = np.zeros((1, max(1, len(sets)), self.variables), np.float32)
        rows = [row for row, members in enumerate(sets) for _ in members]
        table[0, rows, [variable for members in sets for variable in members]] = 1
        return table


def make(
    values: int,
    variables: int,
    groups: Iterable[Sequence[int]],
    given: Mapping[int, int] | None = None,
    allowed: Mapping[int, Sequence[int]] | None = None,
) -> Problem:
    """The problem in its canonical form.

    Raises :class:`CannotAnswer`, which names the thing in one sentence, for what is no problem (an index outside, an
    empty group, more values or variables than the model was made for), and :class:`NoSolution` for what cannot have
    one: more variables that must all differ than values, a variable that may be nothing, two that may only be one and
    the same and must not.
    """
    import numpy as np

    _size("values", values, MOST_VALUES)
    _size("variables", variables, MOST_VARIABLES)
    known = structure(values, variables, tuple(map(tuple, groups)))
    table = np.ones((variables, values), bool)
    for variable, choice in (allowed or {}).items():
        _inside("allowed", variable, variables)
        if not choice:
            raise NoSolution(f"variable {variable} has no allowed value", (variable,))
        for value in choice:
            _value(variable, value, values)
        table[variable] = False
        table[variable, list(choice)] = True
    for variable, value in (given or {}).items():
        _inside("given", variable, variables)
        _value(variable, value, values)
        if not table[variable, value]:
            raise NoSolution(
                f"variable {variable} is given the value {value}, which is not allowed for it", (variable,)
            )
        table[variable] = False
        table[variable, value] = True
    _no_clash(known, table)
    return Problem(values, variables, known.groups, known.overlaps, table)


def _size(what: str, number: int, most: int) -> None:
    if not 1 <= number <= most:
        raise CannotAnswer(f"{what} is {number}, and the model was made for 1 to {most}")


def _inside(where: str, variable: int, variables: int) -> None:
    if not 0 <= variable < variables:
        raise CannotAnswer(f"{where} names the variable {variable}, and variables count from 0 to {variables - 1}")


def _value(variable: int, value: int, values: int) -> None:
    if not 0 <= value < values:
        raise CannotAnswer(f"variable {variable} is to have the value {value}, and values count from 0 to {values - 1}")


def _no_clash(known: Structure, table: NDArray[Any]) -> None:
    """Two variables that may only be one and the same value must not be in conflict."""
    import numpy as np

    holders: dict[int, int] = {}
    for variable in np.flatnonzero(table.sum(1) == 1).tolist():
        value = int(table[variable].argmax())
        same = holders.get(value, 0)
        if other := known.conflicts[variable] & same:
            first = _lowest(other)
            raise NoSolution(
                f"variables {first} and {variable} share a group, and the value {value} is the only one for both",
                (first, variable),
            )
        holders[value] = same | 1 << variable


@lru_cache(maxsize=64)
def structure(values: int, variables: int, groups: tuple[Group, ...]) -> Structure:
    """The canonical groups of these ``groups``: two variables conflict in the result exactly if they do in the input.

    Groups of exactly ``values`` members stay. All other conflicts are covered by cliques, each grown until nobody else
    conflicts with all its members; so the result depends on who conflicts with whom, hardly on how it was written.

    Raises :class:`CannotAnswer` for an empty group and an index outside, :class:`NoSolution` for more variables that
    must all differ than there are values, where the choice comes upon them.
    """
    masks = set()
    for number, group in enumerate(groups):
        if not group:
            raise CannotAnswer(f"groups[{number}] is empty")
        mask = 0
        for variable in group:
            if not 0 <= variable < variables:
                _inside(f"groups[{number}]", variable, variables)
            mask |= 1 << variable
        masks.add(mask)
    conflicts = [0] * variables
    tight = []
    for mask in masks:
        size = mask.bit_count()
        if size > values:
            raise _crowded(mask, values)
        if size == values and size > 1:
            tight.append(mask)
        for variable in _bits(mask):
            conflicts[variable] |= mask
    for variable in range(variables):
        conflicts[variable] &= ~(1 << variable)
    cover = sorted(_members(mask) for mask in [*tight, *_cliques(values, conflicts, tight)])
    return Structure(tuple(cover), _overlaps(values, cover), tuple(conflicts))


def _cliques(values: int, conflicts: list[int], tight: list[int]) -> list[int]:
    """Cliques that cover the conflicts which the ``tight`` groups leave, as few as a greedy choice finds."""
    open_ = conflicts.copy()
    _cover(open_, tight)
    found = []
    for first in range(len(conflicts)):
        while open_[first]:
            second = _lowest(open_[first])
            clique = 1 << first | 1 << second
            common = conflicts[first] & conflicts[second]
            new, some = open_[first] & open_[second], open_[first] | open_[second]
            size = 2
            while common and size < values:
                # Who adds conflicts with all members comes first, then who adds any, so that few cliques are needed.
                best = _lowest(common & new or common & some or common)
                clique |= 1 << best
                size += 1
                common &= conflicts[best]
                new &= open_[best]
                some |= open_[best]
            if common or size > values:
                raise _crowded(clique | (common & -common), values)
            _cover(open_, [clique])
            found.append(clique)
    return _needed(found, tight)


def _cover(open_: list[int], masks: Iterable[int]) -> None:
    for mask in masks:
        for variable in _bits(mask):
            open_[variable] &= ~mask


def _needed(cliques: list[int], tight: list[int]) -> list[int]:
    """``cliques`` without those whose every conflict another one covers too."""
    of: dict[int, list[int]] = {}
    for mask in [*tight, *cliques]:
        for variable in _bits(mask):
            of.setdefault(variable, []).append(mask)
    kept = []
    for mask in cliques:
        for variable in _bits(mask):
            others = 1 << variable
            for other in of[variable]:
                if other != mask:
                    others |= other
            if mask & ~others:
                kept.append(mask)
                break
        else:
            for variable in _bits(mask):
                of[variable].remove(mask)
    return kept


def _overlaps(values: int, groups: list[Group]) -> tuple[Group, ...]:
    if values < 3:
        return ()  # two such groups that share two variables are one
    tight = [(sum(1 << variable for variable in group), group) for group in groups if len(group) == values]
    of: dict[int, int] = {}
    for number, (_, group) in enumerate(tight):
        for variable in group:
            of[variable] = of.get(variable, 0) | 1 << number
    shared = set()
    for number, (mask, group) in enumerate(tight):
        once = twice = 0
        for variable in group:
            twice |= once & of[variable]
            once |= of[variable]
        for other in _bits(twice >> number + 1):
            shared.add(mask & tight[number + 1 + other][0])
    return tuple(sorted(map(_members, shared)))


def _crowded(mask: int, values: int) -> NoSolution:
    members = _members(mask)
    named = ", ".join(map(str, members[:8])) + (" ..." if len(members) > 8 else "")
    return NoSolution(
        f"the {len(members)} variables {named} must all differ, and values are {values} in number", members
    )


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def _members(mask: int) -> Group:
    return tuple(_bits(mask))


@lru_cache
def sudoku_groups(side: int) -> tuple[Group, ...]:
    """Rows, columns and boxes of a Sudoku of ``side`` x ``side`` cells, which count row by row from 0."""
    high, wide = BOXES[side]
    rows = [tuple(row * side + column for column in range(side)) for row in range(side)]
    columns = [tuple(row * side + column for row in range(side)) for column in range(side)]
    boxes = [
        tuple((top + row) * side + left + column for row in range(high) for column in range(wide))
        for top in range(0, side, high)
        for left in range(0, side, wide)
    ]
    return (*rows, *columns, *boxes)
