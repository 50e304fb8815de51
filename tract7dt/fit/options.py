"""What the engine can be told: the part of the settings it reads, and its own fixed numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol


class FitSettings(Protocol):
    """The ``patch_run`` settings that a fit reads; any object with these attributes will do."""

    @property
    def engine(self) -> str:
        """``native`` or ``tractor``."""

    @property
    def n_opt_iters(self) -> int:
        """Iterations of each stage."""

    @property
    def dlnp_stop(self) -> float:
        """Gain in log-posterior below which a source counts as converged; 1e-3 at least is used."""

    @property
    def pos_max_shift_pix(self) -> float | None:
        """Half-width of the position box, pix; None: no box."""

    @property
    def enable_staged_fit(self) -> bool:
        """Positions held, then positions alone, then all."""

    @property
    def enable_multi_band_simultaneous_fitting(self) -> bool:
        """All bands share positions and shapes; otherwise each band is fitted alone."""

    @property
    def flag_maxiter_margin(self) -> int:
        """A source that did not converge counts as out of iterations this many before the last."""

    @property
    def eps_flux(self) -> float:
        """Smallest starting flux, scaled counts."""


def threads_of(settings: FitSettings) -> int:
    """``threads_per_process``; settings made for the engine alone may leave it out (1)."""
    return int(getattr(settings, "threads_per_process", 1))


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Numbers of the native engine that are no user's business, in one place.

    Attributes
    ----------
    profiles : {"sersic", "mixture"}
        EXP and DEV as true Sersic profiles (n = 1, 4; the total is the flux within 8 Re), or as the
        Gaussian mixtures of Hogg & Lang (2013), for comparison with The Tractor.
    stamp_threshold : float
        A source's stamp reaches to where its model drops below this many sigma of a pixel, in every band.
    stamp_coarseness : float
        Until the maximum is near, stamps end where the model drops below this many times ``stamp_threshold``.
    crowd_threshold : float
        Where models are much the same, final stamps reach to where they drop below this many times
        ``stamp_threshold``: what tells them apart is small against the models.
    stamp_radius_max : int
        Largest radius of a stamp, pix, unless the start values need more (then half as much again). What swells
        in the fit is cut there: it is no source any more, and would cost more than all others together.
    stamp_radius_weak : int
        The same for sources with weak priors.
    freeze : float
        A source that a Newton step would improve by less than this is not moved (nor rendered again).
    min_tolerance : float
        Smallest tolerance of convergence, in log-posterior.
    early_tolerance : float
        Expected gain of a source at which the first two stages of a staged fit leave it: they only prepare
        the third.
    early_enough : float
        They also end after an iteration that brought less than this share of the stage's whole gain.
    early_bands : float
        Share of the bands at which they look.
    reset_shape_pix : float
        A source that moved farther than this in the second stage starts the third with its original shape.
    newton_below : float
        Expected gain below which a source's exact curvature replaces the Gauss-Newton one.
    weak_priors : bool
        Give the position of a source, and log re, ee1, ee2 and ln n of a galaxy, weak Gaussian priors where its
        total S/N is below ``weak_prior_snr``; in a blend the S/N counts by the source's share of the light under
        its profile. Otherwise a faint free-n Sersic runs to the largest n and re, where it stands in for the sky,
        a faint, hardly resolved galaxy becomes a needle, and a source beside a bright one swells to take over
        what the other's model leaves. Such sources carry the issue ``weak_prior``.
    weak_prior_snr : float
    weak_prior_pos, weak_prior_log_re, weak_prior_ee, weak_prior_log_n : float
        One sigma of these priors (pix for the position); their means are the start values.
    weak_prior_growth, weak_prior_re : float
        Largest re of such a galaxy, in start values or in pix, whichever is more.
    re_min, re_max : float
        Box of the mean radius (a + b) / 2, pix, in which the fit moves (:mod:`tract7dt.fit.shapes`). A needle of
        re = 0.1 has the smallest: what is smaller looks like a star.
    re_max_of_patch : float
        Largest mean radius as a share of the patch's longer side (or twice the start value, if that is more).
    ee_max : float
        Box of the softened ellipticity components.
    hold_halo : bool
        Fit only the fluxes of halo sources whose light does not matter to the patch's own sources. They carry the
        issue ``halo_held``.
    outside_pix : float
        A source this far off the patch, or farther, keeps its position and shape: only its flux is fitted.
    bound_tolerance : float
        A parameter nearer to its bound than this, in units of its trust step, counts as stalled there.
    image_memory_mb : int
        Memory for the images of the sources in all bands, MiB (more where one buffer a thread takes more).
        Where it does not last, sources are drawn more often in some of the bands; nothing else changes.
    """

    profiles: Literal["sersic", "mixture"] = "sersic"
    stamp_threshold: float = 0.01
    stamp_coarseness: float = 2.0
    crowd_threshold: float = 0.1
    stamp_radius_max: int = 127
    stamp_radius_weak: int = 39
    freeze: float = 3e-4
    min_tolerance: float = 1e-3
    early_tolerance: float = 1.0
    early_enough: float = 0.3
    early_bands: float = 0.34
    reset_shape_pix: float = 0.2
    newton_below: float = 3.0
    weak_priors: bool = True
    weak_prior_snr: float = 40.0
    weak_prior_pos: float = 1.0
    weak_prior_log_re: float = 0.7
    weak_prior_ee: float = 1.0
    weak_prior_log_n: float = 0.5
    weak_prior_growth: float = 5.0
    weak_prior_re: float = 12.0
    re_min: float = 0.05
    re_max: float = 1000.0
    re_max_of_patch: float = 0.5
    ee_max: float = 100.0
    hold_halo: bool = True
    outside_pix: float = 1.0
    bound_tolerance: float = 1e-6
    image_memory_mb: int = 32
