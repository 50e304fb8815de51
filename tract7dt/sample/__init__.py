"""Sample fields: one that is simulated, with known truth, and one that is downloaded."""

from tract7dt.sample.download import DownloadedSample, SampleSource, download_sample
from tract7dt.sample.make import make_sample
from tract7dt.sample.options import SampleField, SampleOptions

__all__ = [
    "DownloadedSample",
    "SampleField",
    "SampleOptions",
    "SampleSource",
    "download_sample",
    "make_sample",
]
