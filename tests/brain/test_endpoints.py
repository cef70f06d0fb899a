"""Which base URLs and which addresses are given a key."""

from __future__ import annotations

import pytest

from brain.errors import EndpointRefused
from brain.models import OpenAIModel
from brain.wire.endpoints import check_addresses, parse_endpoint


@pytest.mark.parametrize(
    ("url", "origin", "rebuilt"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com", "https://api.openai.com/v1"),
        ("https://API.Example.COM:443/v1/", "https://api.example.com", "https://api.example.com/v1"),
        ("https://example.com.:8443", "https://example.com:8443", "https://example.com:8443"),
        ("http://localhost:8000/v1", "http://localhost:8000", "http://localhost:8000/v1"),
        ("http://127.0.0.1:11434/v1", "http://127.0.0.1:11434", "http://127.0.0.1:11434/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000", "http://[::1]:8000/v1"),
        ("http://10.1.2.3/v1", "http://10.1.2.3", "http://10.1.2.3/v1"),
        ("http://vllm:8000/v1", "http://vllm:8000", "http://vllm:8000/v1"),
        ("http://models.internal/v1", "http://models.internal", "http://models.internal/v1"),
        ("https://203.0.112.9/v1", "https://203.0.112.9", "https://203.0.112.9/v1"),
    ],
)
def test_good_urls_are_read(url: str, origin: str, rebuilt: str) -> None:
    endpoint = parse_endpoint(url)
    assert str(endpoint) == endpoint.origin == origin
    assert endpoint.url == rebuilt


BAD = [
    "",
    "api.openai.com/v1",
    "file:///etc/passwd",
    "ftp://example.com/",
    "gopher://example.com/",
    "javascript:alert(1)",
    "https://",
    "https://:443/v1",
    "https://user@example.com/v1",
    "https://api.openai.com:secret@evil.example/v1",
    "https://api.openai.com@evil.example/v1",
    "https://evil.example\\@api.openai.com/v1",
    "https://example.com/v1?key=1",
    "https://example.com/v1#x",
    "https://example.com/v1\r\nX-Evil: 1",
    "https://exa mple.com/v1",
    "https://example.com\t/v1",
    "https://example.com\x00/v1",
    "https://example.com:99999/v1",
    "https://example.com:0/v1",
    "https://exämple.com/v1",
    "https://169。254。169。254/v1",
    "https://example%2ecom/v1",
    "https://-bad-.example/v1",
    "https://[::1/v1",
    "https://[fe80::1%25eth0]/v1",
    # The same metadata service in its disguises.
    "http://169.254.169.254/latest",
    "https://169.254.169.254/v1",
    "https://169.254.169.254./v1",
    "https://2852039166/v1",
    "https://0xA9FEA9FE/v1",
    "https://0xa9.0xfe.0xa9.0xfe/v1",
    "https://0251.0376.0251.0376/v1",
    "https://169.254.43518/v1",
    "https://169.16689662/v1",
    "https://[::ffff:169.254.169.254]/v1",
    "https://[::ffff:a9fe:a9fe]/v1",
    "https://[2002:a9fe:a9fe::]/v1",
    "https://[64:ff9b::169.254.169.254]/v1",
    "https://[fe80::1]/v1",
    "https://[fd00:ec2::254]/v1",
    "https://100.100.100.200/v1",
    "https://168.63.129.16/v1",
    "https://metadata.google.internal/v1",
    "https://METADATA.google.internal./v1",
    "http://metadata/v1",
    "http://instance-data/v1",
    # Nowhere, everywhere, and this machine in disguise.
    "http://0.0.0.0:8000/v1",
    "http://0/v1",
    "http://[::]/v1",
    "http://127.1/v1",
    "http://2130706433/v1",
    "http://0177.0.0.1/v1",
    "https://224.0.0.1/v1",
    "https://255.255.255.255/v1",
    "https://999.1.1.1/v1",
    # A key in clear over the open network.
    "http://api.openai.com/v1",
    "http://8.8.8.8/v1",
    "http://[2606:4700::1111]/v1",
]


@pytest.mark.parametrize("url", BAD)
def test_38_bad_urls_are_refused_at_construction(url: str) -> None:
    with pytest.raises(EndpointRefused) as caught:
        parse_endpoint(url)
    message = str(caught.value)
    assert message.endswith(".")
    assert message.isprintable()
    assert "secret" not in message
    if url:
        with pytest.raises(EndpointRefused):
            OpenAIModel("m", base_url=url, api_key="sk-something")


def test_a_name_must_not_lead_to_this_machine() -> None:
    endpoint = parse_endpoint("https://models.example.com/v1")
    for address in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "169.254.169.254", "fe80::1%eth0", "224.0.0.1"):
        with pytest.raises(EndpointRefused):
            check_addresses(endpoint, [address])
        with pytest.raises(EndpointRefused):  # one bad one among good ones
            check_addresses(endpoint, ["93.184.215.14", address])


def test_localhost_must_lead_to_this_machine() -> None:
    endpoint = parse_endpoint("http://localhost:1/v1")
    assert check_addresses(endpoint, ["::1", "127.0.0.1"]) == ["::1", "127.0.0.1"]
    with pytest.raises(EndpointRefused):
        check_addresses(endpoint, ["93.184.215.14"])


def test_an_internal_name_may_be_private_and_stay_so() -> None:
    endpoint = parse_endpoint("https://models.corp.example/v1")
    assert check_addresses(endpoint, ["10.0.0.7"]) == ["10.0.0.7"]
    assert check_addresses(endpoint, ["10.0.0.8"]) == ["10.0.0.8"]


def test_a_public_name_that_turns_private_is_rebinding() -> None:
    endpoint = parse_endpoint("https://models.example.com/v1")
    assert check_addresses(endpoint, ["93.184.215.14"])
    with pytest.raises(EndpointRefused, match="rebinding"):
        check_addresses(endpoint, ["10.0.0.7"])
    assert check_addresses(endpoint, ["93.184.215.15"])


def test_plain_http_by_name_stays_in_the_private_network() -> None:
    endpoint = parse_endpoint("http://vllm:8000/v1")
    assert check_addresses(endpoint, ["172.17.0.2"])
    with pytest.raises(EndpointRefused, match="https"):
        check_addresses(endpoint, ["93.184.215.14"])
