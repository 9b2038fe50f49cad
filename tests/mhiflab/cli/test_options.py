"""Options: an error about a parameter names the option that sets it."""

import pytest

from feinfn.errors import UserError
from mhiflab.cli.options import named_by_option
from mhiflab.cli.render import _parsed


@named_by_option(memory_mib="--memory")
def command(field: str) -> None:
    raise UserError("found 0, expected a number > 0", field)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("memory_mib", "--memory: found 0, expected a number > 0"),
        ("resources.memory_mib", "resources.memory_mib: found 0, expected a number > 0"),
        ("", "found 0, expected a number > 0"),
    ],
)
def test_an_error_names_the_option_of_its_field(field, text):
    with pytest.raises(UserError) as caught:
        command(field)
    assert str(caught.value) == text


def test_a_file_on_the_command_line_is_found_from_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert _parsed(["published=mine.csv"]) == {"published": str(tmp_path / "mine.csv")}
    assert _parsed(["published=null"]) == {"published": None}
