"""Settings of a fit, as ``patch_run`` has them, with its defaults."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PatchRun:
    engine: str = "native"
    n_opt_iters: int = 20
    dlnp_stop: float = 1e-12
    pos_max_shift_pix: float | None = 5.0
    enable_staged_fit: bool = True
    enable_multi_band_simultaneous_fitting: bool = True
    flag_maxiter_margin: int = 0
    eps_flux: float = 1e-4
