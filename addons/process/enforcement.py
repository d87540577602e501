"""Are the caps enforced, or advisory? A cap binds only where there is no way round the gateway."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass

from addons.process.text import few

KEY_VARIABLES = (
    "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "GEMINI_API_KEY", "GOOGLE_API_KEY",
    "AZURE_OPENAI_API_KEY", "AWS_BEARER_TOKEN_BEDROCK", "MISTRAL_API_KEY", "GROQ_API_KEY", "DEEPSEEK_API_KEY", "XAI_API_KEY",
    "COHERE_API_KEY", "CO_API_KEY", "OPENROUTER_API_KEY", "TOGETHER_API_KEY", "FIREWORKS_API_KEY", "PERPLEXITY_API_KEY",
)  # fmt: skip
"""Where programs look for a provider's own key."""

PROBED_HOSTS = ("api.openai.com", "api.anthropic.com", "generativelanguage.googleapis.com")
_PROBE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What was seen."""

    without_keys: tuple[str, ...] = ()
    """Providers in use whose key is not in the gateway: callers must hold it."""
    own_keys: tuple[str, ...] = ()
    """Variables of this environment that hold a provider's own key."""
    direct_keys_allowed: bool = False
    reachable: tuple[str, ...] | None = None
    """Provider hosts that answer without the gateway; None: not tried."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer, and what would make it better."""

    enforced: bool
    text: str
    advice: str = ""


def verdict(seen: Circumstances) -> Verdict:
    """Enforced when egress is closed, or when every key lives in the gateway and none was seen outside it."""
    if seen.reachable == ():
        return Verdict(
            True,
            "enforced on this machine: no provider can be reached without the gateway",
            "keep the network closed, and try the same on every machine that runs callers",
        )
    reasons = []
    if seen.without_keys:
        reasons.append(f"callers hold their own keys for {few(seen.without_keys)}")
    if seen.own_keys:
        reasons.append(f"this environment holds {', '.join(seen.own_keys)}")
    if seen.direct_keys_allowed:
        reasons.append("client.allow_direct_keys lets callers bring their own keys")
    if not reasons:
        return Verdict(
            True,
            "enforced as far as can be seen from here: the provider keys live in the gateway",
            "make sure that nobody else holds one of them; the probe (--probe) tells whether egress is closed as well",
        )
    tail = f", and {', '.join(seen.reachable)} can be reached directly" if seen.reachable else ""
    return Verdict(
        False,
        f"advisory: {'; '.join(reasons)}{tail}; whoever holds a key can leave the proxy out",
        "put the provider keys into the gateway and take them from callers, or let only the gateway reach providers",
    )


def own_provider_keys(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Names of variables that hold a real provider key; a virtual key in their place is none."""
    return tuple(name for name in KEY_VARIABLES if environ.get(name) and not environ[name].startswith("sk-bf-"))


def reachable_directly(hosts: tuple[str, ...] = PROBED_HOSTS, port: int = 443) -> tuple[str, ...]:
    """The hosts that accept a connection from here without any proxy. Nothing is sent to them."""
    found = []
    for host in hosts:
        try:
            socket.create_connection((host, port), timeout=_PROBE_SECONDS).close()
        except OSError:
            continue
        found.append(host)
    return tuple(found)
