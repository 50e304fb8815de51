"""Prefect tasks: one thin wrapper around each stage of the library."""
