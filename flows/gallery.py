"""Pictures and links of a run as Markdown for Prefect's UI.

The UI shows pictures at http and ``data:`` addresses, and neither files of the worker nor ``s3://``. So pages
carry small pictures in themselves, which stay as long as the artifact does, and links to the published files
beside them, which may end.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tract7dt.errors import Tract7dtError
from tract7dt.store import WorkDir

if TYPE_CHECKING:
    from PIL.Image import Image

    from tract7dt.settings import Settings

__all__ = ["Links", "epsf_page", "overlay_page", "results_page", "zero_point_page"]

log = logging.getLogger(__name__)

#: Characters that the pictures of a page may take; the UI takes pages of less than 100 KB.
_BUDGET = 88_000
_WIDTH = 640


class Links:
    """Addresses of the published files of a run, presigned where the store is S3. Not for logs.

    Parameters
    ----------
    settings : Settings
    note : mapping
        ``publication.json``.
    """

    def __init__(self, settings: Settings, note: Mapping[str, Any]) -> None:
        self._settings, self._note = settings, note
        self._base = str(note.get("url", "")) if note.get("status") == "published" else ""
        self.until = ""
        self._known: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._base)

    @property
    def base(self) -> str:
        """Folder of the run in the store."""
        return self._base

    def to(self, key: str) -> str:
        """What a browser opens; "" if there is no such address."""
        if not self._base.startswith(("s3://", "s3a://", "http://", "https://")):
            return ""
        if key not in self._known:
            self._known[key] = self._made(key)
        return self._known[key]

    def _made(self, key: str) -> str:
        from tract7dt.publish import link

        publish = self._settings.publish
        try:
            made = link(f"{self._base}/{key}", publish.link_expiry_seconds, publish.endpoint_url)
        except (Tract7dtError, OSError) as error:
            log.warning("no link to %s/%s: %s", self._base, key, error)
            return ""
        if made.expires is not None:
            self.until = f"{made.expires:%Y-%m-%d %H:%M} UTC"
        return made.url

    def text(self, key: str, words: str) -> str:
        """Markdown: a link, or the bare address where a browser cannot open it."""
        url = self.to(key)
        return f"[{words}]({url})" if url else f"{words}: `{self._base}/{key}`"

    def ending(self) -> str:
        """When the links end."""
        return f"Links work until {self.until}." if self.until else ""


def overlay_page(work: WorkDir, links: Links) -> str | None:
    """The catalogue on the white stack; None if it was not drawn."""
    files = [path for path in sorted(work.overlay.glob("*.png")) if path.is_file()]
    return _page("Catalogue on the white stack", files, [path.stem for path in files], "overlay/", links)


def zero_point_page(work: WorkDir, links: Links) -> str | None:
    """Zero points of the stars against magnitude, one picture a band; None if there are none."""
    files = [p for p in sorted(work.zp.glob("zp_vs_mag__*.png")) if not p.stem.endswith("_fullrange")]
    names = [path.stem.removeprefix("zp_vs_mag__") for path in files]
    return _page("Zero points against magnitude", files, names, "ZP/", links)


def epsf_page(work: WorkDir, links: Links) -> str | None:
    """The ePSFs of all bands, one sheet of cells a band; None if there are none."""
    from tract7dt.qa.thumbnails import data_urls

    sheets: list[Path | Image] = []
    said = []
    for band in _bands(work):
        name, cells = str(band["band"]), dict(band.get("cells") or {})
        sheet = _sheet(work.epsf / name, cells)
        if sheet is None:
            continue
        sheets.append(sheet)
        lacking = sum(cell.get("status") != "built" for cell in cells.values())
        stars = sum(int(cell.get("n_stars") or 0) for cell in cells.values())
        said.append(
            (name, f"{stars} stars" + (f", **{lacking} of {len(cells)} cells without**" if lacking else ""))
        )
    if not sheets:
        return None
    parts = [
        "## ePSFs",
        "Cells as they lie in the frame, row 0 at the bottom; grey: the analytic PSF stands in.",
    ]
    for (name, text), url in zip(said, data_urls(sheets, _WIDTH // 2, _BUDGET)):
        parts.append(f"**{name}**: {text}" + (f"\n\n![ePSF {name}]({url})" if url else ""))
    return "\n\n".join(parts) + "\n"


def results_page(settings: Settings, note: Mapping[str, Any], links: Links) -> str | None:
    """Where the results of the run are, with the end of the links said; None if there are none."""
    work = WorkDir.of(settings)
    catalog = work.final_catalog.stem
    if not links:
        files = [work.final_catalog.with_suffix(kind) for kind in (".csv", ".parquet", ".fits")]
        lines = [f"- `{path}`" for path in files if path.is_file()]
        if not lines:
            return None
        if note.get("status") == "failed":
            why = f"**Not published**: {note['error']}"
        elif settings.publish.url is None:
            why = "Not published: `publish.url` is not set. On the machine that made them:"
        else:
            why = "Not published. On the machine that made them:"
        return "\n".join(["## Results", "", why, "", *lines]) + "\n"
    wanted = [("report.html", "Report", work.root / "report.html")]
    wanted += [
        (f"{catalog}{kind}", f"Catalogue, {words}", work.final_catalog.with_suffix(kind))
        for kind, words in ((".fits", "FITS"), (".csv", "CSV"), (".parquet", "Parquet"))
    ]
    wanted += [
        ("ZP/zp_summary.csv", "Zero points", work.zp_summary),
        ("manifest.json", "Manifest", work.root),
    ]
    lines = [f"- {links.text(key, words)}" for key, words, path in wanted if path.exists()]
    command = f"tract7dt results get --url {settings.publish.url} --field {work.name} --run {note['run_id']}"
    parts = ["## Results", "\n".join(lines), links.ending(), f"`{links.base}`", f"```\n{command}\n```"]
    return "\n\n".join(part for part in parts if part) + "\n"


def _page(title: str, files: Sequence[Path], names: Sequence[str], folder: str, links: Links) -> str | None:
    from tract7dt.qa.thumbnails import data_urls

    if not files:
        return None
    parts = [f"## {title}"]
    for path, name, url in zip(files, names, data_urls(list(files), _WIDTH, _BUDGET)):
        parts.append(f"**{name}**" + (f"\n\n![{name}]({url})" if url else ""))
        if links:
            parts.append(links.text(f"{folder}{path.name}", "full size"))
    return "\n\n".join([*parts, links.ending()]).rstrip() + "\n"


def _bands(work: WorkDir) -> list[dict[str, Any]]:
    try:
        stored = json.loads((work.epsf / "epsf_summary.json").read_text(encoding="utf-8"))
        return [band for band in stored["bands"] if isinstance(band, dict) and "band" in band]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _sheet(folder: Path, cells: Mapping[str, Mapping[str, Any]]) -> Image | None:
    """The cells of a band by row and column."""
    import numpy as np

    from tract7dt.qa.thumbnails import tiles

    places = {tag: tuple(int(part[1:]) for part in tag.split("_")) for tag in cells}
    if not places:
        return None
    rows, columns = (max(place[i] for place in places.values()) + 1 for i in (0, 1))
    stamps: list[list[Any]] = [[None] * columns for _ in range(rows)]
    for tag, (row, column) in places.items():
        if cells[tag].get("status") != "built" or not cells[tag].get("epsf"):
            continue
        try:
            stamps[row][column] = np.load(folder / str(cells[tag]["epsf"]), allow_pickle=False)
        except (OSError, ValueError):
            continue
    return tiles(stamps)
