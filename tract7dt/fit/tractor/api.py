"""The parts of The Tractor that the engine uses, or a clear word on why they are not there."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from tract7dt.errors import ConfigError

#: What is imported, by module.
_NEEDED = {
    "tractor.brightness": ("Fluxes", "FluxesPhotoCal"),
    "tractor.ellipses": ("EllipseESoft",),
    "tractor.galaxy": ("DevGalaxy", "ExpGalaxy"),
    "tractor.image": ("Image",),
    "tractor.pointsource": ("PointSource",),
    "tractor.psf": ("PixelizedPSF",),
    "tractor.sersic": ("SersicGalaxy", "SersicIndex"),
    "tractor.sky": ("ConstantSky",),
    "tractor.wcs": ("NullWCS", "PixPos"),
}
# Imported by The Tractor only when it draws a galaxy; better missed at once than after hours.
_DRAWING = "astrometry.util.miscutils"

_CURE = (
    "The Tractor and the astrometry.net Python modules that it needs are on no package index (the index's package "
    "named 'tractor' is unrelated): install both as their own documentation says, "
    "https://github.com/dstndstn/tractor and https://github.com/dstndstn/astrometry.net, "
    "or set patch_run.engine: native"
)


@dataclass(frozen=True)
class Api:
    """Classes of The Tractor."""

    Fluxes: Any
    FluxesPhotoCal: Any
    EllipseESoft: Any
    DevGalaxy: Any
    ExpGalaxy: Any
    Image: Any
    PointSource: Any
    PixelizedPSF: Any
    SersicGalaxy: Any
    SersicIndex: Any
    ConstantSky: Any
    NullWCS: Any
    PixPos: Any


def load() -> Api:
    """Import The Tractor.

    Raises
    ------
    ConfigError
        It is not installed, something that it needs is missing, or the package of that name is another one.
    """
    package = _import("tractor")
    found: dict[str, Any] = {}
    for name, classes in _NEEDED.items():
        module = _import(name, package)
        for entry in classes:
            if not hasattr(module, entry):
                raise ConfigError(_unrelated(package, f"{name}.{entry}"))
            found[entry] = getattr(module, entry)
    _import(_DRAWING, package)
    return Api(**found)


def _import(name: str, package: ModuleType | None = None) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing == "tractor":
            raise ConfigError(
                f"patch_run.engine: 'tractor' needs The Tractor, which is not installed. {_CURE}"
            ) from error
        if package is not None and (missing == name or name.startswith(f"{missing}.")) and "tractor" in name:
            raise ConfigError(_unrelated(package, name)) from error
        raise ConfigError(_incomplete(name, error)) from error
    except ImportError as error:
        raise ConfigError(_incomplete(name, error)) from error


def _unrelated(package: ModuleType, missing: str) -> str:
    where = getattr(package, "__file__", None) or "of unknown place"
    return (
        f"patch_run.engine: 'tractor' needs The Tractor; the package 'tractor' that is installed ({where}) has no "
        f"{missing}, so it is another one, or a version too old or too new. {_CURE}"
    )


def _incomplete(name: str, error: ImportError) -> str:
    return f"patch_run.engine: 'tractor' needs The Tractor; {name} cannot be imported: {error}. {_CURE}"
