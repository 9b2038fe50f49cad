"""Published numbers: what is read of them, and what is refused."""

from pathlib import Path

import pandas as pd
import pytest
from tiny import PUBLISHED

from feinfn.errors import UserError
from mhiflab.paths import experiments_dir
from mhiflab.render.tables.published import COLUMNS, NOT_TOLD, read_published

ROW = {**PUBLISHED, "method": "Old #2", "protocol": "PSF #3, of 9x9"}


def write(path: Path, *changes: dict[str, str]) -> Path:
    rows = [{column: (ROW | change).get(column, "") for column in COLUMNS} for change in changes]
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_values_keep_their_digits_and_only_whole_lines_are_comments(tmp_path):
    path = write(tmp_path / "published.csv", {}, {"ratio": "08", "sam": ""}, {"data": "other"})
    path.write_text("# who copied it\n" + path.read_text().replace(",08,", ",8,") + "\n#end\n")
    (one,) = read_published(path, "cave", 4)
    assert one.method == "Old #2"
    assert one.values == {"psnr": "50.10", "sam": "2.00"}
    assert one.spreads == {"psnr": "3.5"}
    assert one.about == "protocol: PSF #3, of 9x9; metrics: unknown"
    assert one.parameters == "1.234"
    # The count is of the network at ratio 4.
    (one,) = read_published(path, "cave", 8)
    assert one.parameters == NOT_TOLD
    with pytest.raises(UserError, match="found nothing of cave x2, expected one of: cave x4, cav"):
        read_published(path, "cave", 2)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"sam": "2,0"}, "line 2: sam: found '2,0', expected a number"),
        ({"psnr": "nan"}, "line 2: psnr: found 'nan'"),
        ({"psnr": "inf"}, "line 2: psnr: found 'inf'"),
        ({"psnr": "5_2.47"}, "line 2: psnr: found '5_2.47'"),
        ({"psnr": " 52.47"}, "line 2: psnr: found ' 52.47'"),
        ({"parameters_counted": "1e3"}, "line 2: parameters_counted: found '1e3'"),
        ({"ratio": "4.0"}, "line 2: ratio: found '4.0', expected an integer"),
        ({"method": ""}, "line 2: method: found '', expected one line"),
        ({"source": "a\tb"}, r"line 2: source: found 'a\\tb'"),
        ({"protocol": "a\x00b"}, r"line 2: protocol: found 'a\\x00b'"),
        ({"protocol": "two\nlines"}, r"line 3: protocol: found 'two\\nlines', expected one"),
        ({"psnr": "", "sam": ""}, "line 2: found no printed number of Old #2"),
    ],
)
def test_wrong_cells_are_told(change, told, tmp_path):
    with pytest.raises(UserError, match=told):
        read_published(write(tmp_path / "published.csv", change), "cave", 4)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "found columns none, expected method, data"),
        ("Bücher".encode("latin-1"), "found byte 1 that is no UTF-8, .* save it"),
        (b"method,more\na,b\n", "found columns method, more, expected method, data"),
        (
            (",".join(COLUMNS) + "\na,b\n").encode(),
            "line 2: found 2 cells, expected 15",
        ),
        ((",".join(COLUMNS) + "\n" + "a," * 15).encode(), "line 2: found 16 cells, expected 15"),
        ((",".join(COLUMNS) + '\n"a,b\n').encode(), "line 2: .*, expected one row a line"),
    ],
)
def test_files_that_are_no_such_table_are_told(content, told, tmp_path):
    path = tmp_path / "published.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=told) as caught:
        read_published(path, "cave", 4)
    assert str(path) in str(caught.value)


def test_shipped_values_say_where_they_come_from():
    path = experiments_dir() / "paper" / "published.csv"
    frame = pd.read_csv(path, dtype=str)
    told = ["method", "data", "ratio", "source", "protocol", "convention"]
    assert frame[told].notna().all(axis=None)
    assert not frame.duplicated(["method", "data", "ratio"]).any()
    for data, ratio in frame[["data", "ratio"]].drop_duplicates().itertuples(index=False):
        assert all("psnr" in one.values for one in read_published(path, data, int(ratio)))
