"""Takes credentials out of headers, addresses and texts before anything is shown, sent on or kept. Pure; never raises."""

import json
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

REDACTED = "[redacted]"
_REDACTED = REDACTED.encode()

type Headers = tuple[tuple[bytes, bytes], ...]

_SECRET_HEADERS = frozenset(
    {
        b"authorization",
        b"proxy-authorization",
        b"cookie",
        b"set-cookie",
        b"x-api-key",
        b"x-goog-api-key",
        b"api-key",
        b"apikey",
        b"ocp-apim-subscription-key",
        b"x-bf-vk",
        b"x-amz-security-token",
        b"x-goog-iam-authorization-token",
        b"authentication-info",
        b"proxy-authentication-info",
    }
)
_SECRET_HEADER_ENDING = re.compile(
    rb"(?:^|[-_.])(?:authorization|auth|token|jwt|secret|password|passwd|credentials?|cookie|api[-_]?key|access[-_]?key"
    rb"|subscription[-_]?key|session(?:[-_]?id)?|signature|assertion)\Z"
)
"""Catches what companies put in front of their models; counters such as `x-ratelimit-remaining-tokens` do not end this way."""

_SECRET_PARAMETER = re.compile(
    rb"(?i)(?<=[?&;])((?:x-amz-(?:signature|credential|security-token)|x-goog-(?:signature|credential)|[a-z0-9_.-]*"
    rb"(?:key|token|secret|password|passwd|signature|credentials?|assertion|jwt)|sig|auth|authorization|code)=)[^&;#]*"
)


def _key_pattern(prefix: bytes, rest: bytes) -> tuple[bytes, re.Pattern[bytes]]:
    """A pattern that starts with its fixed prefix, which makes it quick, and looks back from there to a word's start.

    A word also starts behind an escape inside a JSON text (`\\nsk-…`).
    """
    fixed = re.escape(prefix)
    start = rb"(?:(?<![A-Za-z0-9]" + fixed + rb")|(?<=\\[bfnrt]" + fixed + rb")|(?<=\\u[0-9A-Fa-f]{4}" + fixed + rb"))"
    return prefix, re.compile(fixed + start + rest)


_WORD = rb"[A-Za-z0-9_\-]"
_KEY_FORMS = (
    _key_pattern(b"sk-", _WORD + rb"{12,}"),  # OpenAI, Anthropic, DeepSeek, OpenRouter, and our own sk-bf-
    _key_pattern(b"AIza", _WORD + rb"{30,}"),  # Google
    _key_pattern(b"ya29.", rb"[A-Za-z0-9_\-.]{16,}"),  # Google OAuth
    *(
        _key_pattern(prefix, _WORD + rb"{16,}")
        for prefix in (b"gsk_", b"xai-", b"pplx-", b"hf_", b"nvapi-", b"fw_", b"csk-", b"r8_", b"tgp_")
    ),
    _key_pattern(b"AKIA", rb"[A-Z0-9]{16}"),  # AWS
    _key_pattern(b"ASIA", rb"[A-Z0-9]{16}"),
    _key_pattern(b"eyJ", _WORD + rb"{8,}\." + _WORD + rb"{8,}\." + _WORD + rb"{8,}"),  # JSON web tokens
)
_SCHEMES = frozenset({b"bearer", b"basic", b"digest", b"token", b"apikey", b"negotiate"})
"""Only these words are kept in front of a credential: another first word may be the credential itself."""
_SHORTEST_SECRET = 6
"""A shorter secret would redact ordinary words."""


@lru_cache(maxsize=1024)
def is_secret_header(name: bytes) -> bool:
    """True for a header whose value is a credential. Any case."""
    lower = name.lower()
    return lower in _SECRET_HEADERS or _SECRET_HEADER_ENDING.search(lower) is not None


def redact_headers(headers: Iterable[tuple[bytes, bytes]], secrets: Sequence[bytes] = ()) -> Headers:
    """The headers with every credential replaced; an authorization scheme (`Bearer`, `Basic`) is kept.

    `secrets` are values known to be secret: they go wherever they stand, also in headers with innocent names.
    """
    return tuple(
        (name, without_credential(value)) if is_secret_header(name) else (name, redact_bytes(value, secrets))
        for name, value in headers
    )


def redact_path(path: bytes, secrets: Sequence[bytes] = ()) -> bytes:
    """A request target without secret query parameters, known secrets, and what looks like a key."""
    return redact_bytes(redact_parameters(path), secrets)


def redact_parameters(path: bytes) -> bytes:
    """A request target with the values of secret query parameters replaced."""
    return _SECRET_PARAMETER.sub(rb"\g<1>" + _REDACTED, path) if b"?" in path or b";" in path else path


def redact_bytes(data: bytes, secrets: Sequence[bytes] = ()) -> bytes:
    """`data` without the known secrets and without anything that has the form of a provider's key or of a virtual key.

    Costs a few microseconds a kilobyte. JSON stays JSON.
    """
    data = without_secrets(data, secrets)
    for prefix, pattern in _KEY_FORMS:
        if prefix in data:
            data = pattern.sub(_REDACTED, data)
    return data


def without_secrets(data: bytes, secrets: Sequence[bytes]) -> bytes:
    """`data` without the known secrets: the quick half of `redact_bytes`."""
    for secret in secrets:
        if secret in data:
            data = data.replace(secret, _REDACTED)
    return data


def redact_text(text: str, secrets: Sequence[bytes] = ()) -> str:
    """`redact_bytes` for text; what cannot be encoded is replaced by question marks."""
    data = text.encode("utf-8", "replace")
    clean = redact_bytes(data, secrets)
    return text if clean is data else clean.decode("utf-8", "replace")


def secret_bytes(secrets: Iterable[str | bytes]) -> tuple[bytes, ...]:
    """Known secrets as the bytes to look for, each also as it stands inside a JSON text; too short ones are left out."""
    found: dict[bytes, None] = {}
    for secret in secrets:
        data = secret.encode("utf-8", "replace") if isinstance(secret, str) else secret
        if len(data) < _SHORTEST_SECRET:
            continue
        found[data] = None
        if not data.isascii() or b'"' in data or b"\\" in data:
            found[json.dumps(data.decode("latin-1"), ensure_ascii=False)[1:-1].encode()] = None
    return tuple(found)


def without_credential(value: bytes) -> bytes:
    """What may be shown of a secret header's value."""
    scheme, space, rest = value.partition(b" ")
    if space and rest and scheme.lower() in _SCHEMES:
        return scheme + b" " + _REDACTED
    return _REDACTED
