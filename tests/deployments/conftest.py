"""Fixtures of a site."""

from nightly_site import site

__all__ = ["site"]
