"""Secrets in files: what counts as one, what is said when it does not, and that a replaced file is noticed."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.config_store.secret_file import LARGEST_BYTES, CannotRead, fingerprint, open_to_all, read_secret_file
from store.config_store.secret_text import APP_DIR_VARIABLE, NoSecret, SecretText, environ_of, parse_secret

AS_ROOT = os.geteuid() == 0
ONE_LINE = st.text(st.characters(exclude_characters="\n\r\0\ufeff", exclude_categories=["Cs"]), min_size=1, max_size=80)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=ONE_LINE, end=st.sampled_from(["", "\n", "\r\n"]))
def test_the_one_line_is_the_secret(tmp_path: Path, text: str, end: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes((text + end).encode())
    assert read_secret_file(file) == text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"one\ntwo\n", "has several lines"),
        (b"one\n\n", "has several lines"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"a\0b", "has several lines"),
        (b"x" * (LARGEST_BYTES + 1), f"has more than {LARGEST_BYTES} bytes"),
    ],
)
def test_what_is_no_secret_is_said_without_showing_it(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(CannotRead) as caught:
        read_secret_file(file)
    assert said in str(caught.value) and str(file) in str(caught.value)
    assert "one" not in str(caught.value).replace(str(file), "").replace("one line", "")


def test_a_missing_file_a_directory_and_a_pipe_are_said(tmp_path: Path) -> None:
    with pytest.raises(CannotRead, match="No such file or directory"):
        read_secret_file(tmp_path / "none")
    with pytest.raises(CannotRead, match="directory|plain file"):
        read_secret_file(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CannotRead, match="is no plain file"):
        read_secret_file(tmp_path / "pipe")


@pytest.mark.skipif(AS_ROOT, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_said(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("value")
    file.chmod(0)
    with pytest.raises(CannotRead, match="Permission denied"):
        read_secret_file(file)


def test_paths_begin_at_the_app_directory(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "openai").write_text("sk-from-a-file\n")
    environ = environ_of(tmp_path, {"OTHER": "1"})
    assert environ[APP_DIR_VARIABLE] == str(tmp_path) and environ["OTHER"] == "1"
    assert SecretText("file:secrets/openai").look_up(environ) == "sk-from-a-file"
    assert SecretText(f"file:{tmp_path}/secrets/openai").look_up(environ_of(Path("/nowhere"), {})) == "sk-from-a-file"
    absent = SecretText("file:secrets/none")
    assert absent.resolve(environ) is None
    assert absent.missing(environ) == f"the file {tmp_path}/secrets/none cannot be read (No such file or directory)"
    with pytest.raises(NoSecret):
        absent.look_up(environ)


@pytest.mark.parametrize("written", ["file:", "file: a", "file:a ", "file:~/x", "file://server/x", "file:a\0b", {"type": "file"}])
def test_odd_paths_are_refused(written: object) -> None:
    with pytest.raises(ValueError):
        parse_secret(written)


@pytest.mark.parametrize(
    "written", ["file:a/b", {"value": "file:a/b"}, {"type": "file", "ref": "a/b"}, {"type": "file", "value": "file:a/b"}]
)
def test_every_form_names_the_same_file(written: object) -> None:
    secret = parse_secret(written)
    assert (secret.written, secret.file_path, secret.env_name, secret.is_reference) == ("file:a/b", "a/b", None, True)


def test_a_written_or_replaced_file_has_another_fingerprint(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    seen = {fingerprint(file)}
    for step in ("write", "rename", "link"):
        if step == "write":
            file.write_text("one")
        elif step == "rename":
            (tmp_path / "new").write_text("two")
            (tmp_path / "new").rename(file)
        else:  # as Kubernetes does it: a directory behind a link is exchanged
            (tmp_path / "..1").mkdir()
            (tmp_path / "..1" / "secret").write_text("two")
            file.unlink()
            file.symlink_to(tmp_path / "..1" / "secret")
        seen.add(fingerprint(file))
    assert len(seen) == 4


def test_files_that_everybody_may_read_are_found_but_mounts_are_not(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    file = tmp_path / "secret"
    file.write_text("x")
    file.chmod(0o644)
    for parent in tmp_path.parents:
        if not parent.stat().st_mode & 0o001:
            assert not open_to_all(file), "nobody else gets through"
            break
    else:
        assert open_to_all(file)
    file.chmod(0o640)
    assert not open_to_all(file)
    mounted = tmp_path / "..2026"
    mounted.mkdir()
    (mounted / "key").write_text("x")
    (mounted / "key").chmod(0o644)
    (tmp_path / "key").symlink_to(mounted / "key")
    assert not open_to_all(tmp_path / "key")
    assert not open_to_all(tmp_path / "none")
