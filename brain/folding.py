"""Where a conversation is folded: sizes in, a layout out. Nothing here reads a message.

A request is what stands first (system message, pinned facts), the head (the oldest units, as they were when they were
last looked at), one short message in place of what was left out, and the tail. A fold changes nothing before a point so
far back that most of the next request is, byte for byte, the beginning of the last one, which is what providers' caches
keep. So the first units of a conversation stay, the latest stay, and the middle gives way: first its results become
previews, then whole turns of it are left out.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Literal

from .exchanges import Size, Unit

__all__ = ["FoldKind", "Layout", "Rules", "fold"]

FoldKind = Literal["previews", "left_out", "rebuilt"]
"""Old results became previews; turns were left out; the head itself gave way, so that nothing of it is cached."""

LOOKED_BACK = 30
"""Latest turns whose sizes tell how large the next ones may be."""
LONG_TURN = 0.05
"""Share of the budget above which a turn may be left out in parts, each a call with its results."""
MOST_ROOM = 0.6
"""Share of the budget that is made free at most: a head four times as large as the latest turn needs the rest."""
DEVIATIONS = 3.0
"""Ten turns take their mean, and so many standard deviations of their sum."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a fold must bring about. See :class:`brain.context.Context`."""

    budget: int
    """Tokens that a request may have."""
    head: float
    tail: float
    turns: int


@dataclass
class Layout:
    """How units are shown: those from ``head`` to ``left`` are left out, ``folded`` ones have previews for results."""

    head: int = 0
    left: int = 0
    frozen: int = 0
    """Units before it are as they will stay, until turns are left out."""
    folded: set[int] = field(default_factory=set)
    stays: frozenset[int] = frozenset()
    """Units that are shown although those around them are left out."""

    def shows(self, place: int) -> bool:
        """Whether the unit is shown."""
        return not self.head <= place < self.left or place in self.stays

    def size(self, place: int, unit: Unit) -> Size:
        """Of one unit that is shown."""
        return unit.old_size if place in self.folded else unit.new_size


@dataclass(slots=True)
class _Sums:
    """Sums of sizes up to each place."""

    tokens: list[int]
    bytes: list[int]

    @classmethod
    def of(cls, sizes: Sequence[Size], first: Size) -> _Sums:
        return cls(
            list(accumulate((size.tokens for size in sizes), initial=first.tokens)),
            list(accumulate((size.bytes for size in sizes), initial=first.bytes)),
        )

    def between(self, first: int, last: int) -> Size:
        return Size(self.tokens[last] - self.tokens[first], self.bytes[last] - self.bytes[first])


def fold(layout: Layout, units: Sequence[Unit], first: Size, rules: Rules, stub: Size) -> FoldKind | None:
    """Change ``layout`` so that there is room for some turns; ``None``: nothing more can give way.

    ``first``: what stands before all units. ``stub``: what stands for what is left out, at most. The last unit and the
    latest request stay, and may still be too large.
    """
    cuts = _cuts(units, rules)
    room = _room(cuts, units, first, rules)
    if _fold_results(layout, units, first, rules, stub, cuts, room):
        return "previews"
    return _leave_out(layout, units, first, rules, stub, cuts, room)


def _turns(units: Sequence[Unit]) -> list[int]:
    """Where turns begin: with what a user says."""
    return sorted({0, *(place for place, unit in enumerate(units) if unit.role == "user")})


def _cuts(units: Sequence[Unit], rules: Rules) -> list[int]:
    """Where what is left out may begin and end: between turns, and within long ones between calls."""
    turns = _turns(units)
    cuts: list[int] = []
    for begin, end in zip(turns, [*turns[1:], len(units)], strict=True):
        size = sum(units[place].new_size.tokens for place in range(begin, end))
        cuts += range(begin, end) if size > LONG_TURN * rules.budget else [begin]
    return cuts


def _room(cuts: Sequence[int], units: Sequence[Unit], first: Size, rules: Rules) -> int:
    """Tokens that so many turns will hardly pass, judging by the latest ones."""
    most = min(MOST_ROOM * rules.budget, 0.75 * max(0, rules.budget - first.tokens))
    wanted = max(_likely(bounds, units, rules) for bounds in (_turns(units), cuts))
    return int(min(most, wanted))


def _likely(begins: Sequence[int], units: Sequence[Unit], rules: Rules) -> float:
    bounds = [*begins, len(units)][-LOOKED_BACK - 2 :]
    sizes = [sum(unit.new_size.tokens for unit in units[a:b]) for a, b in pairwise(bounds)]
    sizes = sizes[:-1] or sizes  # the last one is not over
    mean = sum(sizes) / len(sizes)
    spread = math.sqrt(sum((size - mean) ** 2 for size in sizes) / len(sizes))
    return rules.turns * mean + DEVIATIONS * math.sqrt(rules.turns) * spread


def _before(layout: Layout, units: Sequence[Unit], first: Size, stub: Size) -> _Sums:
    """What stands before each place, as it is shown now."""
    sizes = [layout.size(at, unit) if layout.shows(at) else Size() for at, unit in enumerate(units)]
    if layout.left > layout.head:
        sizes[layout.head] += stub
    return _Sums.of(sizes, first)


def _fold_results(
    layout: Layout,
    units: Sequence[Unit],
    first: Size,
    rules: Rules,
    stub: Size,
    cuts: Sequence[int],
    room: int,
) -> bool:
    """Fold the results of one block. The block ends as early as it may, so that most results stay whole."""
    count = len(units)
    lowest = max(layout.frozen, layout.left)
    now = _before(layout, units, first, stub)
    old = _Sums.of([unit.old_size for unit in units], Size())
    share = rules.tail / (1 - rules.tail)
    for end in range(lowest + 1, min(cuts[-1], count - 1) + 1):
        behind = now.between(end, count)
        # Nothing before the beginning changes, so enough must stand there; the earlier, the more room is made.
        begin = (
            bisect_left(
                range(lowest, end),
                True,
                key=lambda at: old.between(at, end).bytes + behind.bytes <= share * now.bytes[at],
            )
            + lowest
        )
        if begin < end and now.tokens[begin] + old.between(begin, end).tokens + behind.tokens <= rules.budget - room:
            layout.folded.update(range(begin, end))
            layout.frozen = end
            return True
    return False


def _leave_out(
    layout: Layout,
    units: Sequence[Unit],
    first: Size,
    rules: Rules,
    stub: Size,
    cuts: Sequence[int],
    room: int,
) -> FoldKind | None:
    """Leave out whole turns between the head and the tail; where that is not enough, the head gives way as well."""
    before = (layout.head, layout.left, len(layout.folded))
    had_head = layout.left > layout.head
    if not had_head:
        layout.head = _head(layout, units, first, rules, stub, cuts, room)
    total = _keep_tail(layout, units, first, rules, stub, cuts, room)
    if total > rules.budget - room // 2 and layout.head > 0:
        smaller = min(layout.head, _head(layout, units, first, rules, stub, cuts, room))
        if total > rules.budget and smaller == layout.head:
            smaller = 0
        if smaller < layout.head:
            layout.head = smaller
            total = _keep_tail(layout, units, first, rules, stub, cuts, room)
            if total > rules.budget and layout.head:
                layout.head = 0
                total = _keep_tail(layout, units, first, rules, stub, cuts, room)
            return "rebuilt" if had_head else "left_out"
    if total > rules.budget:  # what must stay does not fit: the latest results become previews too
        layout.folded.update(range(layout.left, len(units)))
    return None if (layout.head, layout.left, len(layout.folded)) == before else "left_out"


def _head(
    layout: Layout,
    units: Sequence[Unit],
    first: Size,
    rules: Rules,
    stub: Size,
    cuts: Sequence[int],
    room: int,
) -> int:
    """Where the head ends: it has its share of the budget, or less, so that the tail beside it leaves the room."""
    now = _before(layout, units, first, stub)
    bound = layout.head if layout.left > layout.head else len(units)
    least = (stub.bytes + 1.05 * _largest(units, rules)) * (1 - rules.tail) / rules.tail
    wanted = (1 - rules.tail) * (rules.budget - room)
    fitting = [cut for cut in cuts if cut <= bound and now.tokens[cut] <= rules.head * rules.budget]
    if not fitting:
        return 0
    # Beside a small head the latest call alone would be more than may differ.
    enough = [cut for cut in fitting if now.bytes[cut] >= least] or fitting[-1:]
    return min(enough, key=lambda cut: abs(now.tokens[cut] - wanted))


def _largest(units: Sequence[Unit], rules: Rules) -> int:
    """Bytes of the largest of the latest units, but for what is out of all proportion."""
    latest = [unit.new_size for unit in units[-4 * LOOKED_BACK :]]
    return max((size.bytes for size in latest if size.tokens <= 2 * LONG_TURN * rules.budget), default=0)


def _keep_tail(
    layout: Layout,
    units: Sequence[Unit],
    first: Size,
    rules: Rules,
    stub: Size,
    cuts: Sequence[int],
    room: int,
) -> int:
    """Keep as many of the latest turns as have room behind the head, the earlier half with previews. The tokens that
    the request has then."""
    count = len(units)
    last = cuts[-1]
    asked = max((place for place, unit in enumerate(units) if unit.role == "user"), default=-1)
    new = _Sums.of([layout.size(at, unit) for at, unit in enumerate(units)], Size())
    old = _Sums.of([unit.old_size for unit in units], Size())
    head = Size(first.tokens, first.bytes)
    for at in range(layout.head):
        head += layout.size(at, units[at])
    pinned = [at for at in range(layout.head, count) if units[at].pinned or at == asked]
    share = rules.tail / (1 - rules.tail)

    def beside(cut: int) -> Size:
        """What is shown of what is left out."""
        size = stub if cut > layout.head else Size()
        for at in pinned:
            if at < cut:
                size += units[at].new_size
        return size

    chosen, whole = last, last
    for cut in cuts:
        if cut < max(layout.left, layout.head + 1) or cut > last:
            continue
        kept = beside(cut)
        tokens = rules.budget - room - head.tokens - kept.tokens
        size = share * head.bytes - kept.bytes
        half = cut + bisect_left(
            range(cut, last),
            True,
            key=lambda at: new.between(at, count).tokens <= tokens / 2 and new.between(at, count).bytes <= size / 2,
        )
        tail = old.between(cut, half) + new.between(half, count)
        if tail.tokens <= tokens and tail.bytes <= size:
            chosen, whole = cut, half
            break
    else:
        chosen = whole = max(last, layout.left)
    layout.left = max(chosen, layout.head)
    layout.stays = frozenset(at for at in pinned if at < layout.left)
    layout.folded.update(range(layout.left, whole))
    layout.frozen = max(whole, layout.left)
    tail = old.between(layout.left, layout.frozen) + new.between(layout.frozen, count)
    return head.tokens + beside(layout.left).tokens + tail.tokens
