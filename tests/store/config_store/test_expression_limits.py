"""What a condition may cost. The refused ones were tried without limits: they ended the process, or held it up for seconds."""

import time
from typing import Any

import pytest

from store.config_store.expression_limits import ENTRIES_MAX
from store.config_store.expressions import NoAnswer, compile_expression

ONES = f"[{','.join('1' * 100)}]"


@pytest.mark.parametrize(
    "text",
    [
        'headers.exists(name, name.startsWith("x-debug"))',
        '["a", "b"].exists(team, ["c", "d"].all(end, team_id != team && team_id != end))',
        'headers.exists(name, ["x-a", "x-b"].exists(begin, name.startsWith(begin)))',
        'model.matches("^gpt-[0-9]{1,3}(o|-turbo)?$") && provider.matches(r"open(ai|router)")',
        'team_name + "/" + model == "core/gpt-4o"',
        '["+", "map(", "// no"].all(text, text != model)',
        "[1, 2, 3].filter(one, one > 1).size() == 2",
    ],
)
def test_what_people_write_passes(text: str) -> None:
    compile_expression(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("size([model]" + ".map(x,x+x)" * 60 + "[0])>3", "adds 60 times"),
        ("[model].map(x, [x, x]) == []", "uses map"),
        ("[1].all(a, [1].all(b, [1].all(c, true)))", "loops 3 deep"),
        ("headers.all(a, headers.all(b, a != b))", "only a list that stands there"),
        ("[headers].all(a, a.all(b, b != model))", "only a list that stands there"),
        ("[1].all(a, [headers][0].all(b, b != model))", "only a list that stands there"),
        ("[1].all(a, [2].all(b, a + b > 0))", "inside a loop inside a loop"),
        (f"{ONES}.all(a, {ONES}.all(b, a > 0 || b > 0))", "for too long"),
        (" && ".join(["[1].all(a, true)"] * 9), "has 9 loops"),
        ("model.matches(params.pattern)", "must not choose it"),
        ('model.matches("(((a{100}){100}){10})")', "repeats too often"),
        ('headers.exists(name, name.matches("a{20}"))', "repeats too often"),
        (" && ".join(['model.matches("a")'] * 9), "has 9 patterns"),
        ('true // """\n && [model].map(x, x)==[] // """', "has a comment"),
    ],
)
def test_what_could_hold_up_every_call_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        compile_expression(text)


def test_a_caller_cannot_make_a_loop_long() -> None:
    made = compile_expression('headers.exists(name, name == "x-never")')
    values: dict[str, Any] = {"headers": {f"x-{number}": "v" for number in range(ENTRIES_MAX)}}
    assert made.holds(values) is False
    values["headers"]["x-one-more"] = "v"
    with pytest.raises(NoAnswer, match="more than 200 headers"):
        made.holds(values)


def test_the_worst_that_passes_is_bearable() -> None:
    """0.05 s where it was measured; a second is for slow machines."""
    names = ", ".join(f'"{letter}"' for letter in "abcdefgh")
    made = compile_expression(f'headers.exists(h, [{names}].exists(p, headers[h].matches("[0-9]+x") && h.contains(p)))')
    values = {"headers": {f"x-{number}": "v" * 300 for number in range(ENTRIES_MAX)}}
    began = time.perf_counter()
    assert made.holds(values) is False
    assert time.perf_counter() - began < 1
