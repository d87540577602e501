"""The conditions of routing rules (CEL): compiled once, checked against the variables that there are, run on plain values."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from store.config_store.cel_program import compile_program
from store.config_store.expression_limits import ENTRIES_MAX, check_cost
from store.config_store.problems import nearest

if TYPE_CHECKING:
    from cel import Program

LONGEST = 4000
"""Characters of the longest expression. A longer one would be slow to read for people too."""
VARIABLES: Mapping[str, str] = {
    "model": "the model asked for, without a provider in front",
    "provider": "the provider asked for; on /v1 with a bare model name the one that the path stands for",
    "request_type": "chat_completion, text_completion, responses, embedding, messages, generate_content, …",
    "headers": "the request's headers by lower-case name; never credentials",
    "params": "the parameters of the request's query by name; never credentials",
    "virtual_key_id": "of the caller; empty without a virtual key",
    "virtual_key_name": "of the caller",
    "team_id": "of the caller's key; empty without a team",
    "team_name": "of the caller's key",
    "customer_id": "of the caller's key or its team; empty without a customer",
    "customer_name": "of the caller's key or its team",
    "budget_used": "percent spent of the fullest hard money cap that the call touches",
    "tokens_used": "percent used of the fullest hard token limit that the call touches",
    "requests_used": "percent used of the fullest hard request limit that the call touches",
}
"""Every variable an expression may use, and what it holds."""
FULLNESS = frozenset(("budget_used", "tokens_used", "requests_used"))
"""The variables that come from the ledger."""
_FUNCTIONS = frozenset(
    ("size", "startsWith", "endsWith", "contains", "matches", "int", "uint", "double", "string", "bytes", "type", "dyn",
     "timestamp", "duration", "getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getHours",
     "getMinutes", "getSeconds", "getMilliseconds", "has", "all", "exists", "exists_one", "map", "filter")
)  # fmt: skip
_MACROS = frozenset(("all", "exists", "exists_one", "map", "filter"))
_TOKEN = re.compile(
    r"""(?P<text>[rRbB]{0,2}(?:\"\"\".*?\"\"\"|'''.*?'''|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))"""
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<mark>\S)",
    re.DOTALL,
)
_FINDINGS_MAX = 16
"""How many names that were not sent one run may meet before it is given up."""

_SAMPLE: Mapping[str, Any] = {
    name: {} if name in ("headers", "params") else 50.0 if name in FULLNESS else "text" for name in VARIABLES
}  # fmt: skip


class NoAnswer(Exception):
    """The expression could not be answered for this call; the text says why and holds nothing of the call's values."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled condition, and what it looks at."""

    text: str
    program: "Program"
    variables: frozenset[str]
    headers: frozenset[str] | None
    """The names of the headers it asks for; None: it looks at all of them."""
    params: frozenset[str] | None

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether it holds for these values. A header or parameter that was not sent reads as empty text. Raises NoAnswer."""
        asked: dict[str, Any] = {}
        for name in self.variables:
            value = values.get(name)
            if value is not None:
                asked[name] = value
        for of, names in (("headers", self.headers), ("params", self.params)):
            if of in asked:
                sent = asked[of]
                if names is None:
                    asked[of] = everything = dict(sent.items())
                    if len(everything) > ENTRIES_MAX:
                        raise NoAnswer(f"there are more than {ENTRIES_MAX} {of}")
                else:
                    asked[of] = {name: value for name in names if (value := sent.get(name)) is not None}
        return _truth(_run(self.program, self.variables, asked))


def compile_expression(text: str) -> Expression:
    """Compile a condition; empty text always holds. Raises ValueError in the compiler's words, or naming what is not known."""
    return _compiled(text.strip() or "true")


@lru_cache(maxsize=4096)
def _compiled(text: str) -> Expression:
    if len(text) > LONGEST:
        raise ValueError(f"has {len(text)} characters; {LONGEST} are the most")
    try:
        program = compile_program(text)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the parser is foreign code, whose panics are no Exceptions
        raise ValueError(f"cannot be read: {_compiler_words(error)}") from None
    tokens = tuple(_tokens(text))
    check_cost(tokens)
    variables = frozenset(program.variables()) - _bound(tokens)
    for name in sorted(variables - VARIABLES.keys()):
        raise ValueError(f"uses {name!r}, which is no variable here; {nearest(name, tuple(VARIABLES))}{_listed(name)}")
    for name in sorted(program.functions()):
        if name[0].isalpha() and name not in _FUNCTIONS:
            raise ValueError(f"uses the function {name!r}, which there is not; {nearest(name, sorted(_FUNCTIONS))}")
    headers = _asked(tokens, "headers")
    for name in sorted(headers or ()):
        if name != name.lower():
            raise ValueError(f"names of headers are lower case here; write headers[{name.lower()!r}]")
    made = Expression(text, program, variables, headers, _asked(tokens, "params"))
    _try_out(made)
    return made


def _listed(name: str) -> str:
    """The variables, unless the hint for `name` has listed them."""
    return "" if nearest(name, tuple(VARIABLES)).startswith("known here") else f" Variables are: {', '.join(VARIABLES)}"


def _compiler_words(error: BaseException) -> str:
    """The compiler's message on one line, without the expression, which whoever reads it has."""
    words = " ".join(str(error).split())
    return words.partition("ERROR: <input>:")[2].partition(" | ")[0] or words[:300]


def _try_out(made: Expression) -> None:
    """Run it once on sample values: what is no condition is found on saving. Other faults may depend on the values."""
    try:
        made.holds(_SAMPLE)
    except NoAnswer as fault:
        if "true or false" in str(fault) or "not known" in str(fault):
            raise ValueError(str(fault)) from None


def _run(program: "Program", variables: frozenset[str], asked: dict[str, Any]) -> Any:
    for _ in range(_FINDINGS_MAX):
        try:
            return program.execute(asked)
        except KeyError as missing:
            # Not sent: reads as empty text. Only now, so that `"x-team" in headers` still tells whether it was.
            name = missing.args[0] if missing.args else None
            maps = [of for of in ("headers", "params") if of in asked and name not in asked[of]]
            if not isinstance(name, str) or not maps:
                raise NoAnswer("an entry of a map is missing") from None
            for of in maps:
                asked[of] = {**asked[of], name: ""}
        except (KeyboardInterrupt, SystemExit):
            raise
        except RuntimeError as error:
            if "Undefined variable" in str(error):
                absent = next((name for name in sorted(variables) if name not in asked), "a value")
                raise NoAnswer(f"{absent} is not known") from None
            raise NoAnswer(_kind(error)) from None
        except BaseException as error:  # see _compiled
            raise NoAnswer(_kind(error)) from None
    raise NoAnswer("too many headers or parameters are missing")


def _kind(error: BaseException) -> str:
    words = {
        "TypeError": "types do not fit",
        "ZeroDivisionError": "it divides by zero",
        "ValueError": "a value cannot be converted",
    }
    return words.get(type(error).__name__, "it cannot be evaluated")


def _truth(answer: Any) -> bool:
    if answer is True or answer is False:
        return bool(answer)
    raise NoAnswer(f"must be true or false, not {type(answer).__name__}")


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    for found in _TOKEN.finditer(text):
        yield found.lastgroup or "", found[0]


def _bound(tokens: tuple[tuple[str, str], ...]) -> frozenset[str]:
    """Names that macros bind: the `x` of `[1, 2].all(x, x > 0)`."""
    names = set()
    for index in range(len(tokens) - 3):
        before, opening, name, comma = tokens[index : index + 4]
        if before[1] in _MACROS and opening[1] == "(" and name[0] == "name" and comma[1] == ",":
            names.add(name[1])
    return frozenset(names)


def _asked(tokens: tuple[tuple[str, str], ...], of: str) -> frozenset[str] | None:
    """The names by which an expression looks into the map `of`; None when it may look at all of them."""
    names: set[str] = set()
    for index, (kind, word) in enumerate(tokens):
        if kind != "name" or word != of or (index and tokens[index - 1][1] == "."):
            continue
        after = tokens[index + 1 : index + 4]
        before = tokens[max(0, index - 2) : index]
        name: str | None = None
        if len(after) == 3 and after[0][1] == "[" and after[1][0] == "text" and after[2][1] == "]":
            name = _literal(after[1][1])
        elif len(after) >= 2 and after[0][1] == "." and after[1][0] == "name" and not (len(after) == 3 and after[2][1] == "("):
            name = after[1][1]
        elif len(before) == 2 and before[1][1] == "in" and before[0][0] == "text" and not after:
            name = _literal(before[0][1])
        elif len(before) == 2 and before[1][1] == "in" and before[0][0] == "text" and after[0][1] not in ("[", "."):
            name = _literal(before[0][1])
        if name is None:
            return None
        names.add(name)
    return frozenset(names)


def _literal(text: str) -> str | None:
    """The value of a plain string literal; None for raw, triple-quoted and escaped ones."""
    quoted = text[0] in "\"'" and not text.startswith(('"""', "'''")) and "\\" not in text
    return text[1:-1] if quoted else None
