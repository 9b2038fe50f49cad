"""Places that tests read from: the checkout, and real data beside it where the machine has them."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"
SAMPLE = ROOT / "feinfn" / "data" / "sample"
