"""The variables for an unmodified program, and each shell's spelling of them, evaluated by the shells themselves."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addons.process.environment import bypassed_by, client_environment, render
from store.errors import UserError

CERT = Path("/app/ca/mitmproxy-ca-cert.pem")
BUNDLE = Path("/app/ca/bundle.pem")


def made(
    inherited: dict[str, str] | None = None, *, base_urls: bool = False, credential: str | None = "sk-bf-run-1"
) -> dict[str, str]:
    return client_environment("http://127.0.0.1:8080", credential, CERT, BUNDLE, base_urls=base_urls, inherited=inherited or {})


def test_proxy_in_both_spellings_with_the_credential_as_password() -> None:
    variables = made()
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        assert variables[name] == "http://tollgate:sk-bf-run-1@127.0.0.1:8080"
    assert "ALL_PROXY" not in variables and "all_proxy" not in variables
    assert variables["NODE_USE_ENV_PROXY"] == "1"


def test_without_a_credential_the_address_is_bare() -> None:
    assert made(credential=None)["HTTPS_PROXY"] == "http://127.0.0.1:8080"


def test_a_credential_cannot_break_out_of_the_address() -> None:
    assert made(credential="a@b:c/d")["HTTPS_PROXY"] == "http://tollgate:a%40b%3Ac%2Fd@127.0.0.1:8080"


def test_the_bundle_goes_where_a_store_is_replaced_and_the_ca_where_it_is_added_to() -> None:
    variables = made()
    replacing = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "CODEX_CA_CERTIFICATE")
    assert {variables[name] for name in replacing} == {str(BUNDLE)}
    assert {variables[name] for name in ("NODE_EXTRA_CA_CERTS", "DENO_CERT")} == {str(CERT)}


def test_no_proxy_keeps_the_callers_entries_in_either_spelling_once_each() -> None:
    variables = made({"NO_PROXY": "intranet.example,10.0.0.0/8", "no_proxy": "localhost, registry.example"})
    assert variables["NO_PROXY"] == "localhost,127.0.0.1,::1,intranet.example,10.0.0.0/8,registry.example"
    assert variables["no_proxy"] == variables["NO_PROXY"]


def test_a_lone_star_would_let_everything_past() -> None:
    assert made({"NO_PROXY": "*"})["NO_PROXY"] == "localhost,127.0.0.1,::1"


def test_the_gateways_own_host_is_reached_directly() -> None:
    variables = client_environment("http://10.1.2.3:8080", "k", CERT, BUNDLE, base_urls=True, inherited={})
    assert variables["NO_PROXY"].split(",")[-1] == "10.1.2.3"


def test_other_proxy_variables_are_replaced_where_the_caller_has_them() -> None:
    variables = made({"ALL_PROXY": "socks5://corp:1080", "all_proxy": "socks5://corp:1080", "GRPC_PROXY": "http://corp:3128"})
    assert variables["ALL_PROXY"] == variables["all_proxy"] == variables["GRPC_PROXY"] == variables["HTTPS_PROXY"]


def test_base_urls_point_at_each_prefix() -> None:
    variables = made(base_urls=True)
    assert variables["OPENAI_BASE_URL"] == variables["OPENAI_API_BASE"] == "http://127.0.0.1:8080/openai/v1"
    assert variables["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:8080/anthropic"
    assert variables["GOOGLE_GEMINI_BASE_URL"] == "http://127.0.0.1:8080/genai"
    assert not {name for name in made() if name.endswith(("BASE_URL", "API_BASE", "API_KEY", "HEADERS"))}


def test_with_base_urls_callers_without_a_key_get_the_credential_as_one() -> None:
    variables = made(base_urls=True)
    assert variables["OPENAI_API_KEY"] == variables["ANTHROPIC_API_KEY"] == variables["GEMINI_API_KEY"] == "sk-bf-run-1"


def test_with_base_urls_a_callers_own_key_stays_and_the_credential_rides_in_a_header() -> None:
    inherited = {"OPENAI_API_KEY": "sk-own", "CLAUDE_CODE_OAUTH_TOKEN": "t", "ANTHROPIC_CUSTOM_HEADERS": "x-team: blue\n"}
    variables = made(inherited, base_urls=True)
    assert "OPENAI_API_KEY" not in variables and "ANTHROPIC_API_KEY" not in variables
    assert variables["OPENAI_CUSTOM_HEADERS"] == "x-bf-vk: sk-bf-run-1"
    assert variables["ANTHROPIC_CUSTOM_HEADERS"] == "x-team: blue\nx-bf-vk: sk-bf-run-1"


def test_google_has_no_header_variable_so_its_key_is_replaced() -> None:
    variables = made({"GOOGLE_API_KEY": "own", "GEMINI_API_KEY": "own"}, base_urls=True)
    assert variables["GOOGLE_API_KEY"] == variables["GEMINI_API_KEY"] == "sk-bf-run-1"


def test_sdks_read_what_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vendors' own clients pick up address and credential from these variables."""
    import anthropic
    import openai
    from google import genai

    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-own")
    for name, value in made({"OPENAI_API_KEY": "sk-own"}, base_urls=True).items():
        if name.startswith(("OPENAI", "ANTHROPIC", "GOOGLE", "GEMINI")):
            monkeypatch.setenv(name, value)
    chat = openai.OpenAI()
    assert str(chat.base_url) == "http://127.0.0.1:8080/openai/v1/"
    assert (chat.api_key, chat.default_headers["x-bf-vk"]) == ("sk-own", "sk-bf-run-1")
    claude = anthropic.Anthropic()
    assert (str(claude.base_url).rstrip("/"), claude.api_key) == ("http://127.0.0.1:8080/anthropic", "sk-bf-run-1")
    gemini = genai.Client()
    assert gemini._api_client._http_options.base_url == "http://127.0.0.1:8080/genai"
    assert gemini._api_client.api_key == "sk-bf-run-1"


def test_entries_of_no_proxy_that_hide_public_hosts_are_named() -> None:
    inherited = {"NO_PROXY": "localhost,.openai.com,10.0.0.0/8,192.168.1.1:80,build.internal", "no_proxy": "api.anthropic.com"}
    assert bypassed_by(inherited) == [".openai.com", "api.anthropic.com"]


AWKWARD = {
    "PLAIN": "value",
    "SPACES": "  two  words ",
    "QUOTES": 'it\'s "quoted" and `ticked`',
    "DOLLARS": "$HOME ${HOME} $(id) !! \\ \\\\ \\n %PATH%",
    "LINES": "x-team: blue\nx-bf-vk: sk-bf-1",
    "EMPTY": "",
    "LETTERS": "ü – \u2019typographic\u2019 漢字 ;&|<>*?[]{}~#",
}


def evaluated(shell: list[str], variables: dict[str, str], marker: str = "eval") -> dict[str, str]:
    """What a program sees after the shell has evaluated our text, read by the program itself."""
    names = sorted(variables)
    reader = f"import json, os; print(json.dumps({{n: os.environ.get(n) for n in {names!r}}}))"
    script = f'eval "$(cat)"; exec {sys.executable} -c "$READER"'
    done = subprocess.run(
        [*shell, script], input=render(variables, "sh"), capture_output=True, text=True, check=True,
        env={"PATH": "/usr/bin:/bin", "READER": reader, "PYTHONUTF8": "1", "LC_ALL": "C.UTF-8"}, timeout=20,
    )  # fmt: skip
    result: dict[str, str] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("shell", [name for name in ("sh", "bash", "dash", "zsh", "ksh") if shutil.which(name)])
def test_eval_in_a_posix_shell_gives_every_value_back(shell: str) -> None:
    assert evaluated([shell, "-c"], AWKWARD) == AWKWARD


@settings(max_examples=15, deadline=None)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=40))
def test_any_value_survives_sh(value: str) -> None:
    assert evaluated(["sh", "-c"], {"VALUE": value}) == {"VALUE": value}


def test_sh_spells_export_with_single_quotes() -> None:
    assert render({"A": "it's"}, "sh") == "export A='it'\\''s'\n"


def test_fish_escapes_backslash_and_quote_inside_single_quotes() -> None:
    assert render({"A": "it's \\ $X"}, "fish") == "set -gx A 'it\\'s \\\\ $X'\n"


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
def test_fish_gives_every_value_back() -> None:
    script = render(AWKWARD, "fish") + f"exec {sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    done = subprocess.run(["fish", "-c", script], capture_output=True, text=True, check=True, timeout=20)
    seen = json.loads(done.stdout)
    assert {name: seen.get(name) for name in AWKWARD} == AWKWARD


def test_powershell_doubles_every_kind_of_single_quote() -> None:
    assert render({"A": "it's \u2019 $X `n"}, "powershell") == "$Env:A = 'it''s \u2019\u2019 $X `n'\n"


@pytest.mark.skipif(shutil.which("pwsh") is None, reason="no PowerShell here")
def test_powershell_gives_every_value_back() -> None:
    values = {name: value for name, value in AWKWARD.items() if value}  # PowerShell removes a variable that is set to nothing
    script = render(values, "powershell") + f"& {sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    done = subprocess.run(["pwsh", "-NoProfile", "-Command", script], capture_output=True, text=True, check=True, timeout=60)
    seen = json.loads(done.stdout)
    assert {name: seen.get(name) for name in values} == values


def test_cmd_doubles_percent_and_refuses_what_it_cannot_say() -> None:
    assert render({"A": "50% & more"}, "cmd") == 'set "A=50%% & more"\n'
    for value in ('say "hi"', "two\nlines"):
        with pytest.raises(UserError, match="cmd cannot express"):
            render({"A": value}, "cmd")


def test_json_is_the_plain_object() -> None:
    assert json.loads(render(AWKWARD, "json")) == AWKWARD


def test_an_unknown_shell_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="tcsh.*sh, fish, powershell, cmd, json"):
        render({}, "tcsh")
