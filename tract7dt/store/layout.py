"""The folder layout of a run: a contract, since users' scripts read it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["WorkDir"]

#: Longest name of a source in a file name, characters; with what stands around it a file system takes 255.
_LONGEST_NAME = 180


@dataclass(frozen=True, slots=True)
class WorkDir:
    """Paths of every product of a run.

    Attributes
    ----------
    root : Path
        ``outputs.work_dir``.
    epsf, patches, payloads, fits, overlay, cropped : Path
        ``outputs.epsf_dir``, ``patches_dir``, ``patch_inputs_dir``, ``tractor_out_dir``, ``overlay_dir``,
        ``cropped_images_dir``.
    final_catalog : Path
        ``outputs.final_catalog`` (CSV); Parquet and FITS lie beside it.
    name : str
        ``inputs.tile_name``.
    """

    root: Path
    epsf: Path
    patches: Path
    payloads: Path
    fits: Path
    overlay: Path
    cropped: Path
    final_catalog: Path
    name: str

    @classmethod
    def of(cls, settings: Settings) -> WorkDir:
        """Layout for ``settings`` (paths already resolved)."""
        out = settings.outputs
        return cls(
            root=Path(out.work_dir),
            epsf=Path(out.epsf_dir),
            patches=Path(out.patches_dir),
            payloads=Path(out.patch_inputs_dir),
            fits=Path(out.tractor_out_dir),
            overlay=Path(out.overlay_dir),
            cropped=Path(out.cropped_images_dir),
            final_catalog=Path(out.final_catalog),
            name=settings.inputs.tile_name,
        )

    # --- internal products -------------------------------------------------------------------------
    @property
    def frames(self) -> Path:
        """Folder of the scaled, cropped frames (``{band}.npy``, ``white.npy``, ``white_sigma.npy``)."""
        return self.root / "frames"

    @property
    def field_manifest(self) -> Path:
        """Description of the frames; digest of it stands for the field."""
        return self.frames / "field.json"

    def frame(self, band: str) -> Path:
        """Scaled frame of ``band``, float32 .npy."""
        return self.frames / f"{band}.npy"

    def final_mask(self, band: str) -> Path:
        """Final mask bits of ``band``, uint8 .npy."""
        return self.frames / f"{band}_bad.npy"

    @property
    def masks_manifest(self) -> Path:
        """Digests and counts of the final masks."""
        return self.frames / "masks.json"

    def sources(self, stage: str) -> Path:
        """Base catalogue after ``stage`` (``loaded``, ``gaia``, ``bright``), Parquet."""
        return self.root / "sources" / f"sources_{stage}.parquet"

    @property
    def merged(self) -> Path:
        """Merged catalogue before magnitudes, Parquet."""
        return self.root / "sources" / "merged.parquet"

    # --- bookkeeping of reuse ------------------------------------------------------------------------
    @property
    def reuse(self) -> Path:
        """Records of what the stages made."""
        return self.root / ".reuse"

    @property
    def fit_makers(self) -> Path:
        """Which run fitted which patch."""
        return self.reuse / "fit_makers.json"

    def reuse_record(self, stage: str, unit: str | None) -> Path:
        """Record of one unit of a stage."""
        return self.reuse / (f"{stage}.json" if unit is None else f"{stage} {unit}.json")

    @property
    def digests(self) -> Path:
        """Digests of input files, remembered by path, size and times."""
        return self.reuse / "digests.json"

    @property
    def task_results(self) -> Path:
        """Results of tasks that the orchestration keeps, by key."""
        return self.reuse / "prefect"

    @property
    def lock(self) -> Path:
        """Held by the run that works here."""
        return self.root / ".lock"

    @property
    def arrival(self) -> Path:
        """What a run that waits for its images saw when it last looked."""
        return self.root / ".arrival.json"

    @property
    def publication(self) -> Path:
        """What became of the publication of the last run."""
        return self.root / "publication.json"

    @property
    def retention(self) -> Path:
        """Account of what was removed after a while."""
        return self.root / "retention.json"

    # --- products of the contract ------------------------------------------------------------------
    @property
    def wcs(self) -> Path:
        """Working-frame WCS."""
        return self.root / "wcs.fits"

    @property
    def bright_mask(self) -> Path:
        """Bright-source mask, uint8 FITS: bit 1 unmatched bright sources, bit 2 saturated in any band."""
        return self.root / "bright_mask" / "white_bright_mask.fits"

    @property
    def bright_mask_overlay(self) -> Path:
        """Picture of the bright mask."""
        return self.root / "bright_mask" / "white_bright_mask_overlay.png"

    def epsf_cell(self, band: str, cell: str) -> Path:
        """Folder of one band's ePSF in one cell."""
        return self.epsf / band / cell

    def epsf_band(self, band: str) -> Path:
        """Manifest of one band's cells."""
        return self.epsf / band / "cells.json"

    @property
    def epsf_summary(self) -> Path:
        """All bands and cells in one file."""
        return self.epsf / "epsf_summary.json"

    @property
    def patches_csv(self) -> Path:
        """Patch definitions as a table."""
        return self.patches / "patches.csv"

    @property
    def patches_json(self) -> Path:
        """Patch definitions, read by later stages."""
        return self.patches / "patches.json"

    def payload(self, tag: str, compressed: bool) -> Path:
        """Payload of one patch."""
        return self.payloads / (f"{tag}.fits.gz" if compressed else f"{tag}.fits")

    def patch_dir(self, tag: str) -> Path:
        """Folder of one patch's fit."""
        return self.fits / tag

    def patch_catalog(self, tag: str) -> Path:
        """Fit of one patch, CSV, base sources only."""
        return self.patch_dir(tag) / f"{tag}_cat_fit.csv"

    def patch_meta(self, tag: str) -> Path:
        """Status, counters and errors of one patch's fit."""
        return self.patch_dir(tag) / "meta.json"

    def patch_model(self, tag: str) -> Path:
        """Fitted parameters of all sources of a patch (base and halo), from which its model is drawn again."""
        return self.patch_dir(tag) / "model.npz"

    def patch_residual(self, tag: str) -> Path:
        """Residual maps of a patch's base box, block-averaged, int8 .npy."""
        return self.patch_dir(tag) / "residual.npy"

    def cutouts(self, tag: str) -> Path:
        """Folder of the cutouts of a patch's sources."""
        return self.patch_dir(tag) / "cutouts"

    def cutout(self, tag: str, source: str, *, halo: bool = False) -> Path:
        """Cutouts of one source; what cannot stand in a file's name is escaped as in a URL.

        Of a long name the beginning stands, and the CRC-32 of the whole, so that two long names stay two files.
        """
        name = quote(source, safe="+ ,=@")
        if len(name) > _LONGEST_NAME:
            name = f"{name[: _LONGEST_NAME - 9]}~{zlib.crc32(source.encode()):08x}"
        return self.cutouts(tag) / f"src_{'halo_' if halo else ''}{name}.png"

    def patch_log(self, tag: str) -> Path:
        """Log of one patch's fit."""
        return self.patch_dir(tag) / f"{tag}.log"

    @property
    def zp(self) -> Path:
        """Folder of the Gaia and zero-point products."""
        return self.root / "ZP"

    @property
    def augmented_catalog(self) -> Path:
        """Input catalogue with Gaia sources, CSV."""
        return self.zp / f"{self.name}_with_Gaia.csv"

    @property
    def zp_summary(self) -> Path:
        """One row a band."""
        return self.zp / "zp_summary.csv"

    @property
    def zp_per_object(self) -> Path:
        """One row a star and band."""
        return self.zp / "zp_all_bands__per_object.csv"

    @property
    def gaia_overlay(self) -> Path:
        """Picture of the match with Gaia."""
        return self.zp / "gaia_augmentation_overlay.png"

    @property
    def report(self) -> Path:
        """The report of the run."""
        return self.root / "report.html"

    @property
    def run_summary(self) -> Path:
        """Status, stages, counts, inputs and versions of the run."""
        return self.root / "run_summary.json"
