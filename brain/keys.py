"""API keys: held so that no repr, log, error or pickle shows them, and struck out of what an endpoint sends back.

This module knows nothing of models, endpoints or HTTP; it knows strings that must not be seen.
"""

from __future__ import annotations

import json
import logging
import threading
import weakref
from typing import Any, NoReturn
from urllib.parse import quote

__all__ = ["Secret", "redact", "redact_logs", "redact_value"]

HIDDEN = "[key]"

_known: dict[weakref.ref[Secret], tuple[str, ...]] = {}
"""The forms of each key that something still holds."""
_forms: tuple[tuple[str, ...], ...] | None = ()
"""Those of every key once, made anew when a key has come or gone; ``None`` until it is."""
_lock = threading.RLock()  # a key may be collected, and so go, while it is held
_ATOMS = (bool, int, float, type(None))
_PLAIN = (str, list, tuple, dict, set, frozenset)


class Secret:
    """A string whose repr, format and pickle do not contain it. :meth:`reveal` gives it to the one who sends it."""

    __slots__ = ("__weakref__", "_forms", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        # The ways a key comes back inside JSON, a URL or a repr; longest first, so that no form leaves another's tail.
        forms = {text, json.dumps(text)[1:-1], repr(text)[1:-1], quote(text, safe=""), quote(text)}
        self._forms = tuple(sorted(forms, key=len, reverse=True))
        # A key of a few letters ("x", "none") is no secret, and striking it out would shred every message.
        if len(text) >= 6:
            global _forms
            with _lock:
                _known[weakref.ref(self, _forget)] = self._forms
                _forms = None

    def reveal(self) -> str:
        """The key itself."""
        return self._text

    def hide_in(self, text: str) -> str:
        """``text`` with every form of the key struck out."""
        return text if len(self._text) < 6 else _hidden(text, (self._forms,))

    def __repr__(self) -> str:
        return "Secret(...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an API key is not pickled; the model that is unpickled reads its key from the environment")


def redact(text: str) -> str:
    """``text`` without any key this process knows."""
    return _hidden(text, _secrets())


def redact_value(value: Any) -> Any:
    """``value`` without any key this process knows: text, also in plain lists, tuples, sets and dictionaries.

    The very same object where there is nothing to strike out.
    """
    secrets = _secrets()
    if not secrets or type(value) in _ATOMS:
        return value
    try:
        return _without(value, secrets, {})
    except RecursionError:  # too deep for anybody to have put a key there by mistake
        return value


def _forget(reference: weakref.ref[Secret]) -> None:
    global _forms
    with _lock:
        _known.pop(reference, None)
        _forms = None


def _secrets() -> tuple[tuple[str, ...], ...]:
    global _forms
    known = _forms
    if known is None:
        with _lock:
            known = _forms = tuple(dict.fromkeys(list(_known.values())))
    return known


def _hidden(text: str, secrets: tuple[tuple[str, ...], ...]) -> str:
    for forms in secrets:
        for form in forms:
            if form in text:
                text = text.replace(form, HIDDEN)
    return text


def _without(value: Any, secrets: tuple[tuple[str, ...], ...], seen: dict[int, Any]) -> Any:
    kind = type(value)
    if kind is str:
        return _hidden(value, secrets)
    if kind not in _PLAIN or id(value) in seen:
        return seen.get(id(value), value)
    seen[id(value)] = value  # ends circles
    parts = [*value, *value.values()] if kind is dict else list(value)
    if any(type(part) in _PLAIN for part in parts):
        hidden = [_without(part, secrets, seen) for part in parts]
        if any(new is not old for new, old in zip(hidden, parts, strict=True)):
            half = len(value)
            seen[id(value)] = kind(zip(hidden[:half], hidden[half:], strict=True) if kind is dict else hidden)
    return seen[id(value)]


class _KeyFilter(logging.Filter):
    """Strikes keys out of records of loggers that are not ours but write what an endpoint sent."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
        except Exception:  # a record whose arguments do not fit is the writer's mistake; logging reports it itself
            return True
        hidden = redact(message)
        if hidden != message:
            record.msg, record.args = hidden, None
        return True


# httpcore2 writes the response headers at DEBUG, and an endpoint may echo the key in one of them.
_LOGGERS = (
    "httpx2",
    "httpcore2.connection",
    "httpcore2.http11",
    "httpcore2.http2",
    "openai",
    "openai._base_client",
    "openai._response",
    "openai._legacy_response",
)
_filter = _KeyFilter()


def redact_logs() -> None:
    """Put the key filter on the loggers of the HTTP libraries (added only once). Levels stay as they are."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_filter)
