from __future__ import annotations

import sys
from pathlib import Path

# Synthetic results of patches are made where the catalogue is tested, small fields where bad input is.
sys.path[:0] = [str(Path(__file__).resolve().parents[1] / name) for name in ("catalog", "badinput")]
