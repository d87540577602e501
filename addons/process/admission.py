"""Waiting until the gateway port knows a credential that was made a moment ago."""

import base64
import socket
import time
from urllib.parse import urlsplit

PROBED = "api.openai.com:443"
"""Any provider's host will do: the CONNECT is answered without anything being sent there."""

_WAIT_SECONDS = 5.0
_POLL_SECONDS = 0.05
_UNKNOWN = b" 407 "


def wait_until_admitted(gateway_url: str, credential: str) -> bool:
    """Whether the gateway's proxy port took the credential within a few seconds.

    Workers notice changes of the governance by polling, so a fresh credential is unknown for a moment, and a program whose first
    CONNECT is refused may not try again.
    """
    deadline = time.monotonic() + _WAIT_SECONDS
    while not _admitted(gateway_url, credential):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _admitted(gateway_url: str, credential: str) -> bool:
    address = urlsplit(gateway_url)
    basic = base64.b64encode(f"tollgate:{credential}".encode()).decode()
    head = f"CONNECT {PROBED} HTTP/1.1\r\nHost: {PROBED}\r\nProxy-Authorization: Basic {basic}\r\n\r\n"
    try:
        with socket.create_connection((address.hostname or "", address.port or 80), timeout=_WAIT_SECONDS) as connection:
            connection.sendall(head.encode("ascii"))
            status = connection.recv(4096).partition(b"\r\n")[0]
    except OSError:
        return False
    return bool(status) and _UNKNOWN not in status + b" "
