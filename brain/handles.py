"""Values by reference: the handle of a tool's result, and the values that handles in a call's arguments stand for.

The result of the n-th tool message of a conversation has the handle ``@vN:xxxx``; the digits come from what it says, so
that no text is a handle by chance. A model passes one as the whole of an argument's value, or one with a path to a
part: ``@v3:9c4f.rows[0].name``. This module knows nothing of models, tools or runs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from specialists import InvalidArguments
from specialists.ladder import jsonable
from specialists.strict_json import loads

__all__ = ["HANDLE", "UnknownHandle", "handle_of", "part_of", "resolved", "with_handle"]

HANDLE = re.compile(r"(@v[1-9][0-9]{0,8}:[0-9a-f]{4})((?:\.[^\W\d]\w*|\[[0-9]{1,9}\])*)")
"""A handle, and the path to a part of its value."""
_STEP = re.compile(r"\.([^\W\d]\w*)|\[([0-9]+)\]")
_SIGN = "@v"
_SAID = re.compile(r', "handle": "@v[1-9]\d{0,8}:[0-9a-f]{4}"\}\Z', re.ASCII)


_MOST = 256
"""Handles that the arguments of one call may have: each may stand for much."""


class UnknownHandle(LookupError):
    """No result has this handle, or its value has no such part. The message says what there is."""


def handle_of(number: int, content: str) -> str:
    """The handle of the ``number``-th result (from 1) of a conversation, whose tool message says ``content``.

    It follows from the conversation alone, so it is the same in every process; what ``content`` says of its own handle
    does not count.
    """
    bare = content
    if content.endswith('"}') and (said := _SAID.search(content)) is not None:
        bare = content[: said.start()] + "}"
    digest = hashlib.sha256(bare.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{_SIGN}{number}:{digest[:4]}"


def with_handle(number: int, content: str) -> str:
    """``content``, a JSON object that is not empty, with its own handle in it."""
    return f'{content[:-1]}, "handle": "{handle_of(number, content)}"}}'


def part_of(value: Any, path: str, whole: str) -> Any:
    """The part of ``value`` (JSON types) at ``path``: ``.name`` and ``[0]``, one after the other.

    Raises :class:`UnknownHandle`; ``whole`` is what the value is called there.
    """
    for name, index in _STEP.findall(path):
        if name:
            if not isinstance(value, Mapping) or name not in value:
                keys = [str(key)[:64] for key in list(value)[:20]] if isinstance(value, Mapping) else []
                has = f"its keys are {', '.join(keys)}" if keys else "it has no keys"
                raise UnknownHandle(f"{whole} has no {name!r}; {has}")
            value = value[name]
        else:
            if not isinstance(value, list | tuple) or int(index) >= len(value):
                has = f"it has {len(value)} items" if isinstance(value, list | tuple) else "it is no list"
                raise UnknownHandle(f"{whole} has no item {index}; {has}")
            value = value[int(index)]
    return value


def resolved(tool: str, arguments: str, value_of: Callable[[str], Any]) -> str:
    """``arguments`` (JSON text of a call of ``tool``) with the values that its handles stand for.

    ``value_of``: the value of a handle as JSON types; raises :class:`UnknownHandle`. What is no JSON stays as it is.
    Raises ``specialists.InvalidArguments`` for a handle that nothing has, and for one within a longer text.
    """
    if _SIGN not in arguments:
        return arguments
    try:
        given = loads(arguments)
    except (ValueError, RecursionError):
        return arguments  # whoever checks them says what is wrong
    found: list[str] = []
    try:
        filled = _filled(given, value_of, found)
        return json.dumps(filled, ensure_ascii=False) if found else arguments
    except UnknownHandle as error:
        raise InvalidArguments(f"{tool}: {error}", problems=(str(error),)) from None
    except RecursionError:
        problem = "the arguments nest too deeply"
        raise InvalidArguments(f"{tool}: {problem}", problems=(problem,)) from None


def _filled(given: Any, value_of: Callable[[str], Any], found: list[str]) -> Any:
    if isinstance(given, str):
        return _value(given, value_of, found) if _SIGN in given else given
    if isinstance(given, dict):
        return {key: _filled(inner, value_of, found) for key, inner in given.items()}
    if isinstance(given, list):
        return [_filled(inner, value_of, found) for inner in given]
    return given


def _value(text: str, value_of: Callable[[str], Any], found: list[str]) -> Any:
    whole = HANDLE.fullmatch(text.strip())
    if whole is not None:
        found.append(whole[1])
        if len(found) > _MOST:
            raise UnknownHandle(f"one call has more than {_MOST} handles; pass a result that holds them all")
        return part_of(jsonable(value_of(whole[1])), whole[2], f"the value of {whole[1]}")
    for inside in list(dict.fromkeys(match[1] for match in HANDLE.finditer(text)))[:_MOST]:
        try:
            value_of(inside)
        except UnknownHandle:
            continue  # a text that only looks like one
        raise UnknownHandle(f"{inside} stands within a longer text; a handle is passed as the whole value")
    return text
