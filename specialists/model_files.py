"""The bytes of a model file, and that they are the right ones; before anything that understands models sees them.

The hash is taken over the very bytes that are handed on. This module knows nothing of what is inside a model:
:mod:`specialists.graph_check` does.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from .card import CARD, read_card
from .errors import ModelRejected
from .files import MAX_BYTES, FileProblem, read_plain

__all__ = ["MAX_BYTES", "read_model"]


def read_model(
    path: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    limit: int = MAX_BYTES,
    within: str | os.PathLike[str] | None = None,
    hard_links: bool | None = None,
) -> bytes:
    """The bytes of a model file. Raises :class:`ModelRejected`; :class:`CardError` for a card that is none.

    ``path``: the file; with ``within``, its name inside that specialist's folder, of which no part may be a link.
    ``sha256``: what the bytes must hash to (hex); without it the ``specialist.toml`` in ``within``, or beside the
    file, is asked, unless it lists nothing yet. ``limit``: the most bytes it may have.

    The file must be a plain one: no link, no pipe, no device. ``hard_links``: whether it may have a second name;
    ``None`` says only where a package manager has put it, since uv and conda link what they install to their cache.
    An untrusted folder is read with ``False``. It is opened once, without waiting and without following a link, and
    looked at, read and hashed by that one descriptor: whoever exchanges files meanwhile has either the right bytes
    loaded, or none.
    """
    file = Path(path) if within is None else Path(within) / path
    named = repr(str(file))
    try:
        data = read_plain(path, within=within, limit=limit, hard_links=hard_links)
    except FileProblem as problem:
        remedy = "; check its path" if str(problem).startswith("cannot be read") else ""
        raise ModelRejected(f"the model file {named} {problem}{remedy}") from None
    if not data:
        raise ModelRejected(f"the model file {named} is empty; get a clean copy")
    digest = hashlib.sha256(data).hexdigest()
    if sha256 is not None:
        if digest != sha256.lower():
            raise ModelRejected(f"the model file {named} is not the one asked for (its sha256 is {digest})")
        return data
    folder = file.parent if within is None else Path(within)
    listed = read_card(folder).files if os.path.lexists(folder / CARD) else {}
    name = file.relative_to(folder).as_posix()
    if listed and digest != listed.get(name):  # a card that lists nothing is not sealed yet
        raise ModelRejected(
            f"the model file {named} is not the one its card names (its sha256 differs);"
            f" get a clean copy, or, if the change is yours, run `brain specialists seal {folder}`"
        )
    return data
