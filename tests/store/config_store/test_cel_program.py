"""The compiler of expressions comes without the terminal toolkit, and is the package's own."""

import subprocess
import sys

from store.config_store.cel_program import compile_program


def loaded_by(statement: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_a_process_that_may_run_expressions_loads_no_terminal_toolkit() -> None:
    names = loaded_by("import store.config_store.expressions")
    assert "cel.cel" in names
    assert not {"cel.cli", "prompt_toolkit", "rich", "typer"} & names


def test_the_package_imported_later_is_the_same_compiler() -> None:
    code = (
        "import store.config_store.cel_program as ours, cel\n"
        "print(cel.compile('1 < 2').execute({}), cel.compile is ours._extension.compile)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]


def test_a_program_answers() -> None:
    assert compile_program("size(name) > 2 && name.startsWith('a')").execute({"name": "abc"}) is True
