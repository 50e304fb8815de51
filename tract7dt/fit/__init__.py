"""The fit engine: pixels, weights, PSFs and start values of a patch in, positions, shapes and fluxes out."""

from tract7dt.fit.fit import check_engine, fit_native, fit_patch
from tract7dt.fit.options import EngineOptions, FitSettings
from tract7dt.fit.render import render_model
from tract7dt.fit.weights import weights

__all__ = [
    "EngineOptions",
    "FitSettings",
    "check_engine",
    "fit_native",
    "fit_patch",
    "render_model",
    "weights",
]
