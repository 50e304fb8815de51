"""Publishing a run: what of it, its manifest, the upload, and the pointer to the latest run of a field."""

from tract7dt.publish.links import Link, link
from tract7dt.publish.manifest import Latest, Manifest, PublishedObject
from tract7dt.publish.upload import Published, publish

__all__ = ["Latest", "Link", "Manifest", "Published", "PublishedObject", "link", "publish"]
