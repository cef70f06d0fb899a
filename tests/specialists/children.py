"""What tests of child processes share."""

from __future__ import annotations

import asyncio
import os
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from specialists.isolation import IsolatedModel, process

Open = Callable[..., IsolatedModel]

IMPORTS = """
import ctypes, os, pickle, struct, time
import specialists.isolation.child as child
from specialists.isolation.protocol import pack

def send(header, *parts):
    for part in pack(header, parts):
        os.write(child.sink.fileno(), part)

def send_bytes(header, body_length=0, header_length=None):
    length = len(header) if header_length is None else header_length
    os.write(child.sink.fileno(), struct.pack(">IQ", length, body_length) + header)
"""


def serve_instead(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Children with another heart: ``serve(session, sink, waiting)`` of ``code`` in place of the honest one."""
    boot = process._BOOT.replace("main()\n", "")
    changed = (IMPORTS + textwrap.dedent(code)).replace("{", "{{").replace("}", "}}")
    monkeypatch.setattr(process, "_BOOT", f"{boot}\n{changed}\nchild._serve = serve\nmain()\n")


def answer_instead(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Children that do this when they are asked, and nothing else."""
    serve_instead(
        monkeypatch,
        f"def serve(session, sink, waiting):\n    child.sink = sink\n    waiting.get()\n    {code}\n    time.sleep(60)",
    )


@contextmanager
def may_take(model: IsolatedModel, seconds: float) -> Iterator[None]:
    """Runs that are made within may take this long; others take the time they need, however busy the machine is."""
    keeper = model._kept()
    before = keeper._limits
    keeper._limits = replace(before, timeout=seconds)
    yield
    keeper._limits = before


async def running(model: IsolatedModel) -> None:
    """Until the child has something to do."""
    while model._kept()._current is None:  # noqa: ASYNC110 - it is another thread that says so
        await asyncio.sleep(0.001)


def gone(pid: int | None) -> bool:
    """Whether there is no such process any more, not even as a zombie of ours."""
    return not os.path.exists(f"/proc/{pid}")
