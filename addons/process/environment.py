"""The variables that lead an unmodified program through the gateway, and how each shell spells them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit

from store.errors import UserError

_LOCAL = ("localhost", "127.0.0.1", "::1")
_PROXY_USER = "tollgate"
"""The user in the proxy address; the credential rides as the password, which is what tools leave out when they print a URL."""

_ONLY_WHERE_SET = ("ALL_PROXY", "GRPC_PROXY", "WS_PROXY", "WSS_PROXY")
"""Proxy variables that some clients prefer. We never add them, but one the caller has would lead calls past the gateway."""

SHELLS = ("sh", "fish", "powershell", "cmd", "json")


def client_environment(
    gateway_url: str,
    credential: str | None,
    ca_cert: Path,
    ca_bundle: Path,
    *,
    base_urls: bool,
    inherited: Mapping[str, str],
) -> dict[str, str]:
    """Variables to set for a program whose calls are to go through the gateway at `gateway_url`.

    `ca_cert` holds our CA alone (with whatever else the caller adds to a program's own roots); `ca_bundle` holds the system's roots
    as well, for the clients whose variable replaces their store. `inherited` is the caller's environment: its NO_PROXY is kept.
    """
    proxy = _with_credential(gateway_url, credential)
    variables = {
        **_proxy_variables(proxy, gateway_url, inherited),
        **_trust_variables(ca_cert, ca_bundle),
    }
    if base_urls:
        variables |= _base_url_variables(gateway_url, credential, inherited)
    return variables


def bypassed_by(inherited: Mapping[str, str]) -> list[str]:
    """Entries of the caller's NO_PROXY that name public hosts: calls to them do not reach the gateway."""
    entries = _no_proxy_entries(inherited)
    return [entry for entry in entries if "." in entry and not _looks_private(entry)]


def render(variables: Mapping[str, str], shell: str) -> str:
    """The variables as commands of `shell` (one of `SHELLS`), each on a line. Raises UserError for what a shell cannot express."""
    if shell == "json":
        return json.dumps(dict(variables), indent=2) + "\n"
    spell = {"sh": _sh, "fish": _fish, "powershell": _powershell, "cmd": _cmd}.get(shell)
    if spell is None:
        raise UserError(f"{shell!r} is not a shell this command knows: choose one of {', '.join(SHELLS)}")
    return "".join(spell(name, value) + "\n" for name, value in variables.items())


def _with_credential(gateway_url: str, credential: str | None) -> str:
    parts = urlsplit(gateway_url)
    if credential is None:
        return f"{parts.scheme}://{parts.netloc}"
    return f"{parts.scheme}://{_PROXY_USER}:{quote(credential, safe='')}@{parts.netloc}"


def _proxy_variables(proxy: str, gateway_url: str, inherited: Mapping[str, str]) -> dict[str, str]:
    variables: dict[str, str] = {}
    # Plain http goes through as well, or a provider that is reached without TLS (a model server in the local network) would be
    # unmetered. Lower case comes too: curl and libraries like it read http_proxy in that spelling only.
    for name in ("HTTPS_PROXY", "HTTP_PROXY"):
        variables[name] = variables[name.lower()] = proxy
    for name in _ONLY_WHERE_SET:
        for spelling in (name, name.lower()):
            if spelling in inherited:
                variables[spelling] = proxy
    # Node's own fetch reads the proxy variables only when told to (22.21, 24 and later); older ones need --base-url.
    variables["NODE_USE_ENV_PROXY"] = "1"
    # Programs on Node that bring the global-agent package read names of its own.
    variables["GLOBAL_AGENT_HTTP_PROXY"] = variables["GLOBAL_AGENT_HTTPS_PROXY"] = proxy
    no_proxy = ",".join(_merged_no_proxy(gateway_url, inherited))
    for name in ("NO_PROXY", "no_proxy", "GLOBAL_AGENT_NO_PROXY"):
        variables[name] = no_proxy
    return variables


def _trust_variables(ca_cert: Path, ca_bundle: Path) -> dict[str, str]:
    bundle = str(ca_bundle)
    return {
        "SSL_CERT_FILE": bundle,  # OpenSSL, httpx, Go on Linux, Rust, aider, llm, Codex: replaces the store, hence a bundle
        "REQUESTS_CA_BUNDLE": bundle,  # requests, which reads no other
        "CURL_CA_BUNDLE": bundle,  # curl
        "AWS_CA_BUNDLE": bundle,  # boto3 and the aws command, which read no other
        "CODEX_CA_CERTIFICATE": bundle,  # Codex prefers it to SSL_CERT_FILE
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": bundle,  # gRPC brings its own roots
        "NODE_EXTRA_CA_CERTS": str(ca_cert),  # Node adds it to its own roots: Gemini CLI and pi read no other
        "DENO_CERT": str(ca_cert),  # Deno, the same
    }


def _base_url_variables(gateway_url: str, credential: str | None, inherited: Mapping[str, str]) -> dict[str, str]:
    """Base URLs, and the credential where each family of clients can carry it: a base URL itself carries none.

    Where a client sends extra headers from a variable, the virtual key rides in `x-bf-vk` and the caller's own key stays as it is.
    A key variable is filled when the caller has no key at all, because SDKs refuse to start without one.
    """
    root = gateway_url.rstrip("/")
    variables = {
        "OPENAI_BASE_URL": f"{root}/openai/v1",
        "OPENAI_API_BASE": f"{root}/openai/v1",  # aider and older OpenAI clients
        "ANTHROPIC_BASE_URL": f"{root}/anthropic",
        "GOOGLE_GEMINI_BASE_URL": f"{root}/genai",
    }
    if credential is None:
        return variables
    header = f"x-bf-vk: {credential}"
    variables["OPENAI_CUSTOM_HEADERS"] = _joined_headers(inherited.get("OPENAI_CUSTOM_HEADERS"), header, "\n")
    variables["ANTHROPIC_CUSTOM_HEADERS"] = _joined_headers(inherited.get("ANTHROPIC_CUSTOM_HEADERS"), header, "\n")
    variables["GEMINI_CLI_CUSTOM_HEADERS"] = _joined_headers(inherited.get("GEMINI_CLI_CUSTOM_HEADERS"), header, ",")
    if not _any_set(inherited, "OPENAI_API_KEY"):
        variables["OPENAI_API_KEY"] = credential
    if not _any_set(inherited, "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"):
        variables["ANTHROPIC_API_KEY"] = credential
    # Google's SDKs have no variable for headers: their key is the only place for the credential, whatever stood there.
    variables["GEMINI_API_KEY"] = credential
    if "GOOGLE_API_KEY" in inherited:
        variables["GOOGLE_API_KEY"] = credential  # it wins over GEMINI_API_KEY in google-genai
    return variables


def _joined_headers(before: str | None, header: str, separator: str) -> str:
    return f"{before.rstrip(separator)}{separator}{header}" if before and before.strip() else header


def _any_set(inherited: Mapping[str, str], *names: str) -> bool:
    return any(inherited.get(name) for name in names)


def _merged_no_proxy(gateway_url: str, inherited: Mapping[str, str]) -> Sequence[str]:
    """Local names first, then the gateway itself (so that a base URL is not proxied to itself), then the caller's own entries."""
    gateway_host = urlsplit(gateway_url).hostname or ""
    merged = dict.fromkeys((*_LOCAL, gateway_host, *_no_proxy_entries(inherited)))
    # A lone star means "no proxy at all": nothing would reach the gateway, which is not what was asked for.
    return [entry for entry in merged if entry and entry != "*"]


def _no_proxy_entries(inherited: Mapping[str, str]) -> list[str]:
    text = f"{inherited.get('NO_PROXY', '')},{inherited.get('no_proxy', '')}"
    return list(dict.fromkeys(entry for entry in text.replace(" ", ",").split(",") if entry))


def _looks_private(entry: str) -> bool:
    host = entry.lstrip("*.").split(":")[0].lower()
    numeric = host.replace(".", "").replace("/", "").isdigit()
    return numeric or host.endswith(("local", "internal", "lan", "localhost", "localdomain", "home.arpa"))


def _sh(name: str, value: str) -> str:
    return f"export {name}='" + value.replace("'", "'\\''") + "'"


def _fish(name: str, value: str) -> str:
    return f"set -gx {name} '" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _powershell(name: str, value: str) -> str:
    # PowerShell takes the typographic quotes for the plain one, so each is doubled.
    for mark in "'\u2018\u2019\u201a\u201b":
        value = value.replace(mark, mark * 2)
    return f"$Env:{name} = '{value}'"


def _cmd(name: str, value: str) -> str:
    if any(mark in value for mark in '"\r\n'):
        raise UserError(f"{name} holds a quotation mark or a line break, which cmd cannot express: use --shell powershell")
    return f'set "{name}=' + value.replace("%", "%%") + '"'
