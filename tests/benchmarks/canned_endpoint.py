"""A chat-completions endpoint that costs next to nothing: canned bytes over HTTP/1.1 on kept connections.

Run: ``python -m tests.benchmarks.canned_endpoint``; it prints its port and serves until its standard input ends. A
request whose last message is a tool's answer gets a sentence, any other a call of ``shipping_days``. Nothing is
checked: this is what a client's own cost is measured against, in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

__all__ = ["CannedEndpoint"]


def _answer(message: dict[str, Any], reason: str) -> bytes:
    body = json.dumps(
        {
            "id": "chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012",
            "object": "chat.completion",
            "created": 1760000000,
            "model": "gpt-4.1-mini-2025-04-14",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": None, "refusal": None, "annotations": [], **message},
                    "logprobs": None,
                    "finish_reason": reason,
                }
            ],
            "usage": {
                "prompt_tokens": 82,
                "completion_tokens": 17,
                "total_tokens": 99,
                "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
            },
            "service_tier": "default",
            "system_fingerprint": "fp_0123456789",
        }
    ).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


_ARGUMENTS = json.dumps({"country": "Norway", "express": True})
_FUNCTION = {"name": "shipping_days", "arguments": _ARGUMENTS}
_CALL = _answer({"tool_calls": [{"id": "call_AbCdEf012345", "type": "function", "function": _FUNCTION}]}, "tool_calls")
_TEXT = _answer({"content": "A parcel to Norway takes two days by express."}, "stop")


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._buffer = bytearray()
        self._needed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= self._needed:
            head = self._buffer.find(b"\r\n\r\n")
            if head < 0:
                return
            lines = bytes(self._buffer[:head]).lower()
            length = int(lines.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            self._needed = head + 4 + length
            if len(self._buffer) < self._needed:
                return
            last = self._buffer.rfind(b'"role"', 0, self._needed)
            tool = b'"tool"' in self._buffer[last : last + 16]
            del self._buffer[: self._needed]
            self._needed = 0
            self._transport.write(_TEXT if tool else _CALL)  # type: ignore[attr-defined]


class CannedEndpoint:
    """The endpoint in a child process, as a context manager. ``base_url`` is where it listens."""

    def __enter__(self) -> CannedEndpoint:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.canned_endpoint"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._child.stdout is not None
        self.base_url = f"http://127.0.0.1:{int(self._child.stdout.readline())}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait(10)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve())
