"""Where products lie and how they are written: layout of ``work_dir``, atomic writes, digests."""

from tract7dt.store.atomic import atomic_path, remove_temporaries, write_bytes, write_json, write_text
from tract7dt.store.digest import QuickDigest, has_digest, quick_digest, ref_to, sha256_bytes, sha256_file
from tract7dt.store.layout import WorkDir
from tract7dt.store.recording import note_written, recorded_writes, with_recording

__all__ = [
    "QuickDigest",
    "WorkDir",
    "atomic_path",
    "has_digest",
    "note_written",
    "quick_digest",
    "recorded_writes",
    "ref_to",
    "remove_temporaries",
    "sha256_bytes",
    "sha256_file",
    "with_recording",
    "write_bytes",
    "write_json",
    "write_text",
]
