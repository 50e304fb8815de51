"""Forced multi-band photometry of the 7-Dimensional Telescope: the library behind the flow."""

from tract7dt._version import __version__

__all__ = ["__version__"]
