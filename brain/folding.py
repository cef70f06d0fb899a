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
MOST_UNITS = 400
"""Units that are looked back at most."""
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


class _Sums:
    """Sums of sizes up to each place from ``start`` on, beginning with ``base``."""

    __slots__ = ("_start", "bytes", "tokens")

    def __init__(self, start: int, sizes: Sequence[Size], base: Size) -> None:
        self._start = start
        self.tokens = list(accumulate((size.tokens for size in sizes), initial=base.tokens))
        self.bytes = list(accumulate((size.bytes for size in sizes), initial=base.bytes))

    def upto(self, place: int) -> Size:
        return Size(self.tokens[place - self._start], self.bytes[place - self._start])

    def between(self, first: int, last: int) -> Size:
        a, b = first - self._start, last - self._start
        return Size(self.tokens[b] - self.tokens[a], self.bytes[b] - self.bytes[a])


def fold(layout: Layout, units: Sequence[Unit], first: Size, rules: Rules, stub: Size) -> FoldKind | None:
    """Change ``layout`` so that there is room for some turns; ``None``: nothing more can give way.

    ``first``: what stands before all units. ``stub``: what stands for what is left out, at most. The last unit and the
    latest request stay, and may still be too large.
    """
    return _Fold(layout, units, first, rules, stub).make()


class _Fold:
    """One fold. What was left out long ago is not looked at again."""

    def __init__(self, layout: Layout, units: Sequence[Unit], first: Size, rules: Rules, stub: Size) -> None:
        self.layout = layout
        self.units = units
        self.count = len(units)
        self.first = first
        self.rules = rules
        self.stub = stub
        self.share = rules.tail / (1 - rules.tail)
        """What may change, to what stays."""
        self.room = self._room()

    def make(self) -> FoldKind | None:
        return "previews" if self._fold_results() else self._leave_out()

    def _turns(self, start: int, end: int) -> list[int]:
        """Where turns begin: with what a user says."""
        asked = (at for at in range(start + 1, end) if self.units[at].role == "user")
        return [start, *asked] if end > start else []

    def _cuts(self, start: int, end: int) -> list[int]:
        """Where what is left out may begin and end: between turns, and within long ones between calls."""
        turns = self._turns(start, end)
        cuts: list[int] = []
        for begin, over in pairwise([*turns, end]):
            size = sum(self.units[place].new_size.tokens for place in range(begin, over))
            cuts += range(begin, over) if size > LONG_TURN * self.rules.budget else [begin]
        return cuts

    def _room(self) -> int:
        """Tokens that so many turns will hardly pass, judging by the latest ones."""
        start, seen = self.count, 0
        while start > 0 and seen <= LOOKED_BACK and self.count - start < MOST_UNITS:
            start -= 1
            seen += self.units[start].role == "user"
        wanted = max(self._likely(self._turns(start, self.count)), self._likely(self._cuts(start, self.count)))
        budget = self.rules.budget
        return int(min(MOST_ROOM * budget, 0.75 * max(0, budget - self.first.tokens), wanted))

    def _likely(self, begins: Sequence[int]) -> float:
        bounds = [*begins, self.count][-LOOKED_BACK - 2 :]
        sizes = [sum(unit.new_size.tokens for unit in self.units[a:b]) for a, b in pairwise(bounds)]
        sizes = sizes[:-1] or sizes  # the last one is not over
        if not sizes:
            return 0.0
        mean = sum(sizes) / len(sizes)
        spread = math.sqrt(sum((size - mean) ** 2 for size in sizes) / len(sizes))
        return self.rules.turns * mean + DEVIATIONS * math.sqrt(self.rules.turns) * spread

    def _head_size(self) -> Size:
        """What stands before what is left out."""
        size = self.first
        for at in range(self.layout.head):
            size += self.layout.size(at, self.units[at])
        return size

    def _sizes(self, start: int) -> list[Size]:
        return [self.layout.size(at, self.units[at]) for at in range(start, self.count)]

    def _fold_results(self) -> bool:
        """Fold the results of one block. The block ends as early as it may, so that most results stay whole."""
        layout, units, count = self.layout, self.units, self.count
        base = self._head_size() if layout.left > layout.head else self.first
        if layout.left > layout.head:
            base += self.stub
            for at in layout.stays:
                base += units[at].new_size
        lowest = max(layout.frozen, layout.left)
        now = _Sums(layout.left, self._sizes(layout.left), base)
        old = _Sums(lowest, [units[at].old_size for at in range(lowest, count)], Size())
        last = min(self._cuts(lowest, count)[-1:] or [0])
        for end in range(lowest + 1, min(last, count - 1) + 1):
            behind = now.between(end, count)

            def stays(at: int, end: int = end, behind: int = behind.bytes) -> bool:
                return old.between(at, end).bytes + behind <= self.share * now.upto(at).bytes

            # Nothing before the beginning changes, so enough must stand there; the earlier, the more room is made.
            begin = lowest + bisect_left(range(lowest, end), True, key=stays)
            after = now.upto(begin).tokens + old.between(begin, end).tokens + behind.tokens
            if begin < end and after <= self.rules.budget - self.room:
                layout.folded.update(range(begin, end))
                layout.frozen = end
                return True
        return False

    def _leave_out(self) -> FoldKind | None:
        """Leave out whole turns between head and tail; where that is not enough, the head gives way as well."""
        layout, budget = self.layout, self.rules.budget
        before = (layout.head, layout.left, len(layout.folded))
        had_head = layout.left > layout.head
        if not had_head:
            layout.head = self._head(self.count)
        total = self._keep_tail()
        if total > budget - self.room // 2 and layout.head > 0:
            smaller = self._head(layout.head)
            if total > budget and smaller == layout.head:
                smaller = 0
            if smaller < layout.head:
                total = self._shrink(smaller)
                if total > budget and layout.head:
                    total = self._shrink(0)
                if total <= budget:
                    return "rebuilt" if had_head else "left_out"
        if total > budget:  # what must stay does not fit: the latest results become previews too
            layout.folded.update(range(layout.left, self.count))
        if (layout.head, layout.left, len(layout.folded)) == before:
            return None
        return "rebuilt" if had_head and layout.head < before[0] else "left_out"

    def _head(self, bound: int) -> int:
        """Where the head ends: it has its share of the budget, or less, so that the tail beside it leaves the room."""
        rules = self.rules
        now = _Sums(0, [self.layout.size(at, self.units[at]) for at in range(bound)], self.first)
        cuts = [*self._cuts(0, bound), *([bound] if bound < self.count else [])]
        fitting = [cut for cut in cuts if now.upto(cut).tokens <= rules.head * rules.budget]
        if not fitting:
            return 0
        # Beside a small head the latest call alone would be more than may differ.
        least = (self.stub.bytes + 1.05 * self._largest()) / self.share
        wanted = (1 - rules.tail) * (rules.budget - self.room)
        enough = [cut for cut in fitting if now.upto(cut).bytes >= least] or fitting[-1:]
        return min(enough, key=lambda cut: abs(now.upto(cut).tokens - wanted))

    def _largest(self) -> int:
        """Bytes of the largest of the latest units, but for what is out of all proportion."""
        latest = [unit.new_size for unit in self.units[-4 * LOOKED_BACK :]]
        return max((size.bytes for size in latest if size.tokens <= 2 * LONG_TURN * self.rules.budget), default=0)

    def _shrink(self, head: int) -> int:
        """Let the head end there, and leave out what was behind it."""
        pinned = {at for at in range(head, self.layout.head) if self.units[at].pinned}
        self.layout.head = head
        self.layout.stays |= pinned
        return self._keep_tail()

    def _keep_tail(self) -> int:
        """Keep as many of the latest turns as have room behind the head, the earlier half with previews. The tokens
        that the request has then."""
        layout, units, count = self.layout, self.units, self.count
        start = max(layout.left, layout.head)
        head = self._head_size()
        asked = next((at for at in range(count - 1, -1, -1) if units[at].role == "user"), -1)
        seen = [*sorted(at for at in layout.stays if layout.head <= at < start), *range(start, count)]
        pinned = [at for at in seen if units[at].pinned or at == asked]
        if layout.head <= asked < start and asked not in pinned:
            pinned.append(asked)
        new = _Sums(start, self._sizes(start), Size())
        old = _Sums(start, [units[at].old_size for at in range(start, count)], Size())
        cuts = self._cuts(start, count) or [start]
        last = cuts[-1]

        def beside(cut: int) -> Size:
            """What is shown of what is left out."""
            size = self.stub if cut > layout.head else Size()
            for at in pinned:
                if at < cut:
                    size += units[at].new_size
            return size

        chosen = whole = last
        for cut in cuts:
            if cut <= layout.head:
                continue
            kept = beside(cut)
            tokens = self.rules.budget - self.room - head.tokens - kept.tokens
            size = self.share * head.bytes - kept.bytes

            def is_half(at: int, tokens: int = tokens, size: float = size) -> bool:
                behind = new.between(at, count)
                return behind.tokens <= tokens / 2 and behind.bytes <= size / 2

            half = cut + bisect_left(range(cut, last), True, key=is_half)
            tail = old.between(cut, half) + new.between(half, count)
            if tail.tokens <= tokens and tail.bytes <= size:
                chosen, whole = cut, half
                break
        layout.left = max(chosen, start)
        layout.stays = frozenset(at for at in pinned if at < layout.left)
        layout.folded.update(range(layout.left, whole))
        layout.frozen = max(whole, layout.left)
        tail = old.between(layout.left, layout.frozen) + new.between(layout.frozen, count)
        return head.tokens + beside(layout.left).tokens + tail.tokens
