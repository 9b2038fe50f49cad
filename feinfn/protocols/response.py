"""Spectral responses: tables by wavelength and matrices by band number, read from CSV files.

Legend: M MSI bands, S bands of a scene, N wavelengths or bands of a table.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np

from feinfn.errors import UserError, require_one_of

EMBEDDED = files("feinfn").joinpath("protocols/srf")

# Keys of a file's comment lines and their valid values; `bands` and `note` take free text.
STATEMENTS = {"rows": ("normalised", "as stored"), "outside": ("refused", "zero")}


@dataclass(frozen=True, eq=False)
class ResponseTable:
    """Responses of MSI bands, on a grid of wavelengths or band by band."""

    source: str
    """Name or file, for error messages."""
    names: tuple[str, ...]
    """Names of the M MSI bands."""
    values_MN: np.ndarray
    """Responses, one row per MSI band."""
    grid_nm: np.ndarray | None
    """Ascending wavelengths [N]; None for a matrix that fits scenes of N bands only."""
    normalised: bool = True
    """Divide each row by its sum after resampling it to the scene's bands."""
    zero_outside: bool = False
    """Take the response beyond the grid as zero, because the sensor is known to see nothing
    there."""

    def sha256(self) -> str:
        """Return the SHA-256 of everything that changes numbers."""
        grid = None if self.grid_nm is None else self.grid_nm.tolist()
        options = [self.normalised, self.zero_outside]
        content = [self.names, self.values_MN.tolist(), grid, options]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def matrix(
        self,
        columns: tuple[str, ...],
        bands: int,
        wavelengths_nm: np.ndarray | None,
        by: Literal["wavelength", "index"] = "wavelength",
    ) -> np.ndarray:
        """Return the response [M, S] of MSI bands `columns` on a scene's bands, float64.

        By wavelength, the table is interpolated linearly at the band centres. By index, entry i
        belongs to band i regardless of wavelength. Raises `UserError` if table, columns and bands
        do not fit.
        """
        for column in columns:
            among = f"bands of the response {self.source}: "
            require_one_of("msi_order", column, self.names, among)
        rows = self.values_MN[[self.names.index(c) for c in columns]]
        if by == "wavelength":
            rows = self._resample(rows, wavelengths_nm)
        if rows.shape[1] != bands:
            raise UserError(
                f"response {self.source}: found a scene of {bands} bands, expected "
                f"{rows.shape[1]}; use scenes with these bands or another response"
            )
        totals = rows.sum(axis=1, keepdims=True)
        for name, total in zip(columns, totals[:, 0], strict=True):
            if total <= 0:
                raise UserError(
                    f"response {self.source}: MSI band {name} sees nothing of the scene's bands; "
                    "use scenes that cover it or another protocol"
                )
        return rows / totals if self.normalised else rows.copy()

    def _resample(self, rows: np.ndarray, wavelengths_nm: np.ndarray | None) -> np.ndarray:
        grid = self.grid_nm
        if grid is None:
            raise UserError(
                f"found 'wavelength', expected 'index' for {self.source}, which is a matrix by "
                "band number",
                "srf_by",
            )
        if wavelengths_nm is None:
            raise UserError(
                f"response {self.source}: the scene has no wavelengths, but the table is by "
                "wavelength; name the scene's wavelengths or use a protocol with a matrix"
            )
        low, high = wavelengths_nm.min(), wavelengths_nm.max()
        if not self.zero_outside and not (low >= grid[0] and high <= grid[-1]):
            raise UserError(
                f"response {self.source}: the scene's bands span {low:g} to {high:g} nm, but the "
                f"table covers {grid[0]:g} to {grid[-1]:g} nm; drop the bands outside or use a "
                "protocol with another table"
            )
        return np.stack([np.interp(wavelengths_nm, grid, row, left=0, right=0) for row in rows])


@cache
def read_srf(name: str) -> ResponseTable:
    """Read a response by its name under feinfn/protocols/srf, or from a user's CSV file.

    The format is described in feinfn/protocols/srf/README.md. Raises `UserError` that names file
    and line.
    """
    path = Path(name).expanduser() if name.endswith(".csv") else EMBEDDED.joinpath(f"{name}.csv")
    if not path.is_file():
        embedded = sorted(p.name[:-4] for p in EMBEDDED.iterdir() if p.name.endswith(".csv"))
        among = "'measured', the path of a .csv file that exists, or one of "
        require_one_of("srf", name, embedded, among)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{name}: found no text, expected a CSV file in UTF-8") from None
    statements: dict[str, str] = {}
    cells: list[tuple[int, list[str]]] = []
    for number, line in enumerate(lines, 1):
        if line.startswith("#"):
            key, value = _statement(line, f"{name}: line {number}")
            statements[key] = value
        elif line.strip():
            cells.append((number, [cell.strip() for cell in line.split(",")]))
    by_wavelength = bool(cells) and cells[0][1][0] == "wavelength_nm"
    if by_wavelength:
        names = tuple(cells.pop(0)[1][1:])
    elif "bands" in statements:
        names = tuple(cell.strip() for cell in statements["bands"].split(","))
    else:
        raise UserError(
            f"{name}: expected a first row 'wavelength_nm,<band>,...' for a table by wavelength, "
            "or a line '# bands: <band>,...' for a matrix by band number"
        )
    values = _numbers(name, cells)
    grid = None
    if by_wavelength:
        grid, values = values[:, 0], values[:, 1:].T
        if not (np.diff(grid) > 0).all():
            raise UserError(f"{name}: wavelength_nm: expected ascending wavelengths")
    if len(names) != len(values) or len(set(names)) != len(names) or "" in names:
        raise UserError(
            f"{name}: found {len(values)} responses and the band names {', '.join(names)}, "
            "expected one name for each, all different"
        )
    return ResponseTable(
        source=name,
        names=names,
        values_MN=np.ascontiguousarray(values),
        grid_nm=grid,
        normalised=statements.get("rows", "normalised") == "normalised",
        zero_outside=statements.get("outside", "refused") == "zero",
    )


def _statement(line: str, where: str) -> tuple[str, str]:
    key, _, value = (part.strip() for part in line[1:].partition(":"))
    words = STATEMENTS.get(key, ())
    if key not in (*STATEMENTS, "bands", "note") or (words and value not in words):
        raise UserError(
            f"{where}: found {line!r}, expected '# bands: <names>', '# note: <text>', "
            + " or ".join(f"'# {k}: {' | '.join(v)}'" for k, v in STATEMENTS.items())
        )
    return key, value


def _numbers(name: str, cells: list[tuple[int, list[str]]]) -> np.ndarray:
    """Return rows of text as a float64 array; raise `UserError` that names the line."""
    rows = []
    for number, row in cells:
        try:
            values = [float(cell) for cell in row]
        except ValueError:
            values = [math.nan]
        if not all(map(math.isfinite, values)) or len(row) != len(cells[0][1]):
            raise UserError(
                f"{name}: line {number}: found {','.join(row)[:60]!r}, expected "
                f"{len(cells[0][1])} finite numbers with commas between them"
            )
        rows.append(values)
    if not rows:
        raise UserError(f"{name}: found no numbers, expected at least one row")
    return np.array(rows)
