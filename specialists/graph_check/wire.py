"""Protobuf's wire format, read strictly and without copying. It knows nothing of ONNX.

Where protobuf would read a thing that is written in several ways, only the plain one is taken: what is checked here and
what is loaded later must be the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["FIXED32", "FIXED64", "LENGTH", "VARINT", "Malformed", "Reader", "Refused", "signed"]

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

_RUNS = {
    # A list of numbers may be one field for each of them: a run of floats (field 7) or of whole numbers (field 8), as
    # attributes have them, is stepped over in one go.
    0x3D: re.compile(rb"(?s:\x3d.{4})++"),
    0x40: re.compile(rb"(?:\x40[\x80-\xff]{0,9}+[\x00-\x7f])++"),
}
_ENDS = "it ends in the middle of a field"
_NO_PROTOBUF = "it is not in protobuf's format"


class Malformed(Exception):
    """This is not ONNX, or is not written as any program writes it."""


class Refused(Exception):
    """This may be ONNX, and there is something in it that is not loaded."""


class Reader:
    """Messages in ``data``. ``most``: the fields that are read in all before :class:`Refused` is raised.

    Raises :class:`Malformed`, or ``IndexError`` where the data end in the middle of a field.
    """

    __slots__ = ("count", "data", "most")

    def __init__(self, data: bytes, most: int) -> None:
        self.data = data
        self.most = most
        self.count = 0

    def fields(self, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """The fields of the message at ``at`` as (number, wire type, a, b).

        ``a`` is the value of a varint and otherwise where the content begins; ``b`` is where the field ends. A run of
        numbers is one field with its tags in its content.
        """
        data, most = self.data, self.most
        while at < end:
            self.count += 1
            if self.count > most:
                raise Refused(f"it has more than {most:,} fields")
            tag = data[at]
            if tag in _RUNS and (run := _RUNS[tag].match(data, at, end)):
                yield tag >> 3, tag & 7, at, run.end()
                at = run.end()
                continue
            at += 1
            if tag >= 0x80:
                more = data[at]
                at += 1
                if not 0 < more < 0x80:  # no number in ONNX is so large, and a needless byte could hide a field
                    raise Malformed(_NO_PROTOBUF)
                tag = (tag & 0x7F) | more << 7
            wire = tag & 7
            if tag < 8:
                raise Malformed(_NO_PROTOBUF)
            if wire == LENGTH:
                size = data[at]
                at += 1
                if size >= 0x80:
                    size, at = self.varint(at - 1)
                stop = at + size
                if stop > end:
                    raise Malformed(_ENDS)
                yield tag >> 3, LENGTH, at, stop
                at = stop
            elif wire == VARINT:
                value = data[at]
                at += 1
                if value >= 0x80:
                    value, at = self.varint(at - 1)
                if at > end:
                    raise Malformed(_ENDS)
                yield tag >> 3, VARINT, value, at
            elif wire in (FIXED64, FIXED32):
                start = at
                at += 8 if wire == FIXED64 else 4
                if at > end:
                    raise Malformed(_ENDS)
                yield tag >> 3, wire, start, at
            else:  # groups are long gone
                raise Malformed(_NO_PROTOBUF)

    def varint(self, at: int) -> tuple[int, int]:
        """The number of up to 64 bits at ``at``, and where it ends."""
        data, value = self.data, 0
        for shift in range(0, 70, 7):
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >= 1 << 64 or (byte == 0 and shift):
                    break
                return value, at
        raise Malformed(_NO_PROTOBUF)

    def varints(self, at: int, end: int, *, tagged: bool = False) -> list[int]:
        """A list of numbers as signed 64-bit integers; ``tagged``: each with its tag of one byte before it."""
        values = []
        while at < end:
            value, at = self.varint(at + 1 if tagged else at)
            values.append(signed(value))
        if at > end:
            raise Malformed(_ENDS)
        return values


def signed(value: int) -> int:
    """A varint's 64 bits as protobuf's int64 means them."""
    return value - (1 << 64) if value >= 1 << 63 else value
