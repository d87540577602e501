"""Virtual key values: how they look, how they are found by their hash, and what of them may be shown."""

import hashlib
from collections.abc import Callable

KEY_PREFIX = "sk-bf-"
RUN_PREFIX = "sk-bf-run-"
_HINT_TAIL = 4
_SHORTEST = len(KEY_PREFIX) + 4
_LONGEST = 512

Entropy = Callable[[int], bytes]
"""Gives that many random bytes; `os.urandom` at the edge of the process."""


def new_key_value(entropy: Entropy) -> str:
    """A fresh virtual key, `sk-bf-` and a random UUID (version 4, RFC 9562)."""
    return KEY_PREFIX + _uuid4(entropy)


def new_run_value(entropy: Entropy) -> str:
    """A fresh run credential, `sk-bf-run-` and a random UUID: a virtual key value that tells people what it is."""
    return RUN_PREFIX + _uuid4(entropy)


def hash_key_value(value: str) -> str:
    """SHA-256 in lower-case hex, over the value's UTF-8 bytes. The values carry 122 random bits, so no salt is needed."""
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()


def key_hint(value: str) -> str:
    """`sk-bf-…1a2b`: the prefix and the last four characters, for people."""
    prefix = RUN_PREFIX if value.startswith(RUN_PREFIX) else KEY_PREFIX
    return f"{prefix}…{value[-_HINT_TAIL:]}"


def check_key_value(value: str) -> str:
    """A value somebody chose for a virtual key. Raises ValueError; the message never shows the value."""
    if not value.startswith(KEY_PREFIX):
        raise ValueError(f"a virtual key begins with {KEY_PREFIX}; write one such as {KEY_PREFIX}<uuid>, or leave it out")
    if value.startswith(RUN_PREFIX):
        raise ValueError(f"{RUN_PREFIX} is kept for run credentials; begin with {KEY_PREFIX} only")
    if not _SHORTEST <= len(value) <= _LONGEST:
        raise ValueError(f"a virtual key has {_SHORTEST} to {_LONGEST} characters")
    if not value.isascii() or not value.isprintable() or any(c in value for c in " :@/?#\"'\\,;"):
        raise ValueError("a virtual key has letters, digits and - _ . only, as it travels in headers and addresses")
    return value


def fits_a_header(text: str) -> bool:
    """Whether a credential can travel in a header: printable ASCII without spaces around it."""
    return text.isascii() and text.isprintable() and text == text.strip()


def _uuid4(entropy: Entropy) -> str:
    raw = bytearray(entropy(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
