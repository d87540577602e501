"""What is printed for people: tables that nobody else's words can break."""

from addons.process.text import printable, table


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert table(["A", "B"], [["long", "x"], ["y", "z"]]) == "A     B\nlong  x\ny     z\n"


def test_a_model_name_cannot_steer_the_terminal_or_make_a_row() -> None:
    shown = table(["MODEL", "CHARGED"], [["gpt\x1b[31m\nfaked", "$1.00"]])
    assert shown == "MODEL           CHARGED\ngpt\ufffd[31m\ufffdfaked  $1.00\n"


def test_words_of_any_script_are_left_as_they_are() -> None:
    assert printable("Größe 模型 → ok") == "Größe 模型 → ok"
    assert printable("a\u202eb\x9bc\x7f") == "a\ufffdb\ufffdc\ufffd"
