"""Settings that the tests of this folder share."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for synthetic_catalog, the builders of synthetic products


@pytest.fixture
def zp_settings():
    return SimpleNamespace(clip_sigma=3.0, clip_max_iters=10, zp_err_method="all_mad", zp_err_snr_min=100.0)
