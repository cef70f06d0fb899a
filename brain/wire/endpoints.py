"""Which endpoints may be given a key: base URLs checked when written, addresses checked when connected.

A URL is untrusted until checked: it comes from a configuration file or an environment variable. Refused are metadata
services and link-local addresses in any spelling, a name that leads to this machine or, after having been public, into
the private network (DNS rebinding), and a key over plain http beyond the private network. This module knows nothing of
HTTP, models or keys' contents; it decides and resolves, and makes no connection.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from ..errors import EndpointRefused

__all__ = ["Endpoint", "Resolver", "check_addresses", "parse_endpoint", "resolve", "resolver"]

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver: TypeAlias = Callable[[str, int], Awaitable[list[str]]]
AddressKind = Literal["public", "private", "loopback", "forbidden"]

_METADATA_NAMES = {
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "metadata.azure.internal",
    "metadata.oraclecloud.com",
    "instance-data",
    "instance-data.ec2.internal",
}
# Metadata services outside the link-local networks: AWS over IPv6, Alibaba, Azure's wire server, Oracle classic.
_METADATA_ADDRESSES = {
    ipaddress.ip_address(text) for text in ("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
}
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_THIS_NETWORK = ipaddress.IPv4Network("0.0.0.0/8")
_SHARED = ipaddress.IPv4Network("100.64.0.0/10")
_PRIVATE_SUFFIXES = (".local", ".internal", ".lan", ".home.arpa", ".localdomain", ".svc", ".cluster.local", ".test")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")


@dataclass(frozen=True)
class Endpoint:
    """A checked base URL. ``str()`` is the origin: scheme, host and port, no path."""

    scheme: str
    host: str
    """Lower case, without brackets or trailing dot."""
    port: int
    path: str
    """Without a trailing slash."""
    address: Address | None
    """The host when it is written as an address, else ``None``."""
    seen_public: list[bool] = field(default_factory=list, compare=False, repr=False)
    """Not empty once the name has led to a public address; from then on a private one is a rebinding."""

    @property
    def origin(self) -> str:
        """Scheme, host and, unless it is the scheme's own, port."""
        host = f"[{self.host}]" if isinstance(self.address, ipaddress.IPv6Address) else self.host
        standard = {"http": 80, "https": 443}[self.scheme]
        return f"{self.scheme}://{host}" + ("" if self.port == standard else f":{self.port}")

    @property
    def url(self) -> str:
        """The base URL, rebuilt from what was checked."""
        return self.origin + self.path

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine, by name or by address."""
        return self.host == "localhost" or (self.address is not None and kind_of(self.address) == "loopback")

    def __str__(self) -> str:
        return self.origin


def parse_endpoint(base_url: str) -> Endpoint:
    """Check ``base_url`` and take it apart. Raises :class:`EndpointRefused` with the reason; nothing is resolved."""
    if not isinstance(base_url, str):
        raise EndpointRefused(f"base_url must be a string, not {type(base_url).__name__}.")
    if not base_url:
        raise EndpointRefused("base_url is empty; write it like https://api.example.com/v1, or leave it out.")
    if any(ord(char) <= 32 or ord(char) == 127 or char == "\\" for char in base_url):
        raise EndpointRefused("base_url contains a space, a control character or a backslash; write it without.")
    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError:
        raise EndpointRefused("base_url is not a URL; write it like https://api.example.com/v1.") from None
    if parts.scheme not in ("http", "https"):
        raise EndpointRefused(
            f"base_url has the scheme {parts.scheme[:20]!r}; only https and, to a private address, http are allowed."
        )
    # What stands before an @ is read as the host by people and as a password by programs, so it is not repeated here.
    if "@" in parts.netloc:
        raise EndpointRefused("base_url contains user@host; give the key as api_key and write the host alone.")
    if parts.query or parts.fragment or "?" in base_url or "#" in base_url:
        raise EndpointRefused("base_url contains a query or a fragment; end it with the path, for example /v1.")
    host = (parts.hostname or "").removesuffix(".")
    if port == 0:
        raise EndpointRefused("base_url has the port 0; write a port from 1 to 65535.")
    address = _literal(host, bracketed="[" in parts.netloc)
    if address is None:
        _check_name(host)
    elif kind_of(address) == "forbidden":
        raise EndpointRefused(
            f"base_url points to {host}, a link-local, metadata or reserved address; a key is never sent there."
        )
    endpoint = Endpoint(
        scheme=parts.scheme,
        host=host,
        port=port or (443 if parts.scheme == "https" else 80),
        path=parts.path.rstrip("/"),
        address=address,
    )
    if endpoint.scheme == "http" and not _may_be_private(endpoint):
        raise EndpointRefused(f"{endpoint.origin} would carry the key unencrypted over public networks; use https.")
    return endpoint


def check_addresses(endpoint: Endpoint, found: list[str]) -> list[str]:
    """Of the addresses a host resolved to, those to connect to, in order.

    One bad address refuses all of them: an attacker's answer that mixes good and bad ones is still an attacker's.
    Raises :class:`EndpointRefused`.
    """
    kinds: set[AddressKind] = set()
    for text in found:
        kind = kind_of(ipaddress.ip_address(text.partition("%")[0]))
        kinds.add(kind)
        if kind == "forbidden":
            raise EndpointRefused(f"{endpoint.host} resolves to {text}, an address that a key is never sent to.")
        if endpoint.host == "localhost":
            if kind != "loopback":
                raise EndpointRefused(f"localhost resolves to {text}, which is not this machine.")
        elif endpoint.address is None and kind == "loopback":
            raise EndpointRefused(
                f"{endpoint.host} resolves to this machine ({text}); write localhost or the address if that is meant."
            )
        elif kind == "public" and endpoint.scheme == "http":
            raise EndpointRefused(
                f"{endpoint.host} resolves to the public address {text}; use https, a key is not sent there in clear."
            )
    if endpoint.address is None and "private" in kinds and (endpoint.seen_public or "public" in kinds):
        raise EndpointRefused(
            f"{endpoint.host} resolved to a public address and now to a private one, as in DNS rebinding."
        )
    if "public" in kinds and not endpoint.seen_public:
        endpoint.seen_public.append(True)
    return found


def kind_of(address: Address) -> AddressKind:
    """Where ``address`` leads; an IPv4 address inside an IPv6 one counts as what it is."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is None and address.teredo is not None:
            inner = address.teredo[1]
        if inner is not None:
            return kind_of(inner)
    if address in _METADATA_ADDRESSES:
        return "forbidden"
    if address.is_loopback:
        return "loopback"
    if address.is_link_local or address.is_unspecified or address.is_multicast or address.is_reserved:
        return "forbidden"
    if isinstance(address, ipaddress.IPv4Address):
        if address in _THIS_NETWORK:
            return "forbidden"
        if address in _SHARED:
            return "private"
    return "private" if address.is_private else "public"


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of ``host``, by the system's resolver. Raises ``OSError`` when there are none."""
    loop = asyncio.get_running_loop()
    rows = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(row[4][0]) for row in rows))


resolver: Resolver = resolve
"""What names are resolved with. Tests put a fake here."""


def _literal(host: str, *, bracketed: bool) -> Address | None:
    if bracketed or ":" in host:
        try:
            return ipaddress.IPv6Address(host)
        except ValueError:
            raise EndpointRefused(f"base_url has the IPv6 address [{host[:60]}], which cannot be read.") from None
    try:
        return ipaddress.IPv4Address(host)
    except ValueError:
        pass
    try:
        # The C library also reads 2852039166, 0xA9FEA9FE and 0251.0376.0251.0376: one address in many disguises.
        socket.inet_aton(host)
    except (OSError, UnicodeError, ValueError):
        if re.fullmatch(r"[0-9.]+|0x[0-9a-f.x]*", host):
            raise EndpointRefused(f"base_url has the host {host[:60]!r}, which is no address and no name.") from None
        return None
    raise EndpointRefused(f"base_url writes an address as {host[:60]!r}; write it as four decimal numbers.")


def _check_name(host: str) -> None:
    if not host:
        raise EndpointRefused("base_url has no host; write it like https://api.example.com/v1.")
    if not host.isascii():
        raise EndpointRefused("base_url has a host outside ASCII; write it in its xn-- form.")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise EndpointRefused(f"base_url has the host {host[:60]!r}, which is no host name.")
    if host in _METADATA_NAMES:
        raise EndpointRefused(f"base_url points to {host}, a metadata service; a key is never sent there.")


def _may_be_private(endpoint: Endpoint) -> bool:
    if endpoint.address is not None:
        return kind_of(endpoint.address) in ("private", "loopback")
    # A name without a dot or under a suffix of private networks; where it leads is checked again at connect.
    return "." not in endpoint.host or endpoint.host.endswith(_PRIVATE_SUFFIXES)
