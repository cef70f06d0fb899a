"""JSON written once: values as the bytes that go over the wire, and messages that keep theirs.

A message is encoded when it is made, and from then on its bytes are what every request is assembled from. So it is not
changed any more: it is a dictionary like any other to whoever reads it, and says how to make another one to whoever
writes. This module knows nothing of models, tools or what a message means.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NoReturn

from pydantic_core import PydanticSerializationError, to_json

__all__ = ["EncodedMessage", "NotJson", "as_message", "encode"]


class NotJson(ValueError):
    """A value that cannot be written as JSON; the message says why, in one sentence, and quotes none of it."""


def encode(value: Any) -> bytes:
    """``value`` as JSON: compact, UTF-8, keys in their order. Raises :class:`NotJson`."""
    problem = None
    try:
        raw = to_json(value, fallback=_plain)
        if b"NaN" not in raw and b"Infinity" not in raw:
            return raw
        json.dumps(value, allow_nan=False, default=_plain)  # the words may stand in a text
        return raw
    except PydanticSerializationError as error:
        if "surrogate" in str(error):
            problem = "half a character (a lone surrogate), which cannot be written as UTF-8"
    except UnicodeEncodeError:
        problem = "half a character (a lone surrogate), which cannot be written as UTF-8"
    except (TypeError, ValueError, RecursionError):
        pass
    raise NotJson(problem or "a value that cannot be written as JSON; use plain values")


class _Fixed:
    """What may not be changed, because its bytes were written already."""

    __slots__ = ()

    def _no(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a message is not changed once it was sent or answered; copy.deepcopy it, and change the copy")

    __setitem__ = __delitem__ = __ior__ = __iadd__ = __imul__ = _no
    clear = pop = popitem = setdefault = update = append = extend = insert = remove = sort = reverse = _no


class _FixedDict(_Fixed, dict[str, Any]):
    __slots__ = ()

    def __copy__(self) -> dict[str, Any]:
        return dict(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return {key: copy.deepcopy(value, memo) for key, value in self.items()}

    def __reduce__(self) -> Any:
        return type(self), (dict(self),)


class _FixedList(_Fixed, list[Any]):
    __slots__ = ()

    def __copy__(self) -> list[Any]:
        return list(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        return [copy.deepcopy(value, memo) for value in self]

    def __reduce__(self) -> Any:
        return type(self), (list(self),)


class EncodedMessage(_FixedDict):
    """A chat message with its bytes. Equal to a plain dictionary of the same content; copies are plain dictionaries.

    Raises :class:`NotJson`. Changing it, at any depth, raises ``TypeError``.
    """

    __slots__ = ("as_sent", "dotted", "renamed", "wire")

    wire: bytes
    """The message as JSON."""
    as_sent: bytes | None
    """``wire``; ``None`` where the message has to be looked at before it is sent: :attr:`dotted`, or more than text."""
    dotted: bool
    """Whether it calls a tool whose name cannot travel as it is."""
    renamed: tuple[Any, bytes] | None
    """The bytes last made for other names of tools, and those names."""

    def __init__(self, message: Mapping[str, Any]) -> None:
        calls = message.get("tool_calls")
        content = message.get("content")
        self.wire = encode(message)
        if any(type(value) not in _ATOMS for value in message.values()):
            message = {key: _fixed(value) for key, value in message.items()}
        dict.__init__(self, message)
        self.dotted = bool(calls) and _has_dot(calls)
        self.as_sent = None if self.dotted or not (content is None or isinstance(content, str)) else self.wire
        self.renamed = None


def as_message(message: Mapping[str, Any]) -> EncodedMessage:
    """``message`` with its bytes; the very same object when it has them already. Raises :class:`NotJson`."""
    return message if type(message) is EncodedMessage else EncodedMessage(message)


_ATOMS = (str, type(None), bool, int, float)


def _fixed(value: Any) -> Any:
    kind = type(value)
    if kind in _ATOMS:
        return value
    if isinstance(value, Mapping):
        return _FixedDict({key: _fixed(part) for key, part in value.items()})
    if isinstance(value, (list, tuple)):
        return _FixedList(_fixed(part) for part in value)
    return value


def _has_dot(calls: Any) -> bool:
    try:
        return any("." in call["function"]["name"] for call in calls)
    except (TypeError, KeyError):  # whoever reads the message says what is wrong with it
        return True


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
