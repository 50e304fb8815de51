"""Fixtures of an S3 server on loopback."""

from s3_server import proxy, s3, s3_server

__all__ = ["proxy", "s3", "s3_server"]
