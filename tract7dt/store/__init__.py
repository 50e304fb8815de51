"""Where products lie and how they are written: layout of ``work_dir``, atomic writes, digests."""

from tract7dt.store.atomic import atomic_path, write_json, write_text
from tract7dt.store.digest import ref_to, sha256_bytes, sha256_file
from tract7dt.store.layout import WorkDir

__all__ = ["WorkDir", "atomic_path", "ref_to", "sha256_bytes", "sha256_file", "write_json", "write_text"]
