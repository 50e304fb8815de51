"""The flow over the fake stages, by the name that a deployment of the tests has for it."""

from __future__ import annotations

import fake_stages

fake_stages.install()

from flows.photometry import photometry  # noqa: E402

__all__ = ["photometry"]
