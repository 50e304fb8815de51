"""Print the page of the outputs: ``python docs/make_outputs.py > docs/outputs.md``; its tables come from the code."""

from __future__ import annotations

import sys

from tract7dt.flags import flags_markdown
from tract7dt.schema import columns_markdown

PAGE = """# Outputs

Everything lies in `outputs.work_dir`. A file is written whole or not at all: under a temporary name, then renamed.

| file | content |
|---|---|
| `output_catalog.csv`, `.parquet`, `.fits` | the catalogue: every input row, in order, once. Parquet and FITS carry units and descriptions |
| `run_summary.json` | status, the ten stages with their time and memory, counts, failed patches with reasons, inputs with sha256, versions |
| `config_used_{time}.yaml`, `{command}.log` | the configuration as it was given, the log (appended to) |
| `wcs.fits` | WCS of the working frame (after the crop) |
| `frames/` | scaled, cropped frames as float32 `.npy`, the white stack and its noise, final masks `{band}_bad.npy` (1 not finite, 2 saturated, 4 bright source or trail), `field.json` |
| `sources/` | the base catalogue after each stage, the merged catalogue without magnitudes (Parquet) |
| `cropped_images/`, `overlay/` | the white stack before and after the crop, the sources on it by type |
| `bright_mask/` | `white_bright_mask.fits` (1 bright and not in the catalogue, 2 saturated in any band) with the table of detections, and a picture |
| `EPSFs/{band}/{cell}/` | `epsf.npy` (float32, unit sum), `meta.json` (stars with the reason of every refusal, FWHM, ellipticity, encircled energy), `epsf.png`, `psfstars.png`; `EPSFs/epsf_summary.json` |
| `patches/patches.csv`, `patches.json` | patch definitions |
| `patch_payloads/{patch}.fits.gz` | everything that the fit of a patch needs: images, masks, PSFs, sources. Opens in any FITS viewer, can be fitted on any machine |
| `outputs/{patch}/` | the patch's fit `{patch}_cat_fit.csv`, `meta.json`, `{patch}.log`, `patch_overview.png` |
| `ZP/` | `{tile_name}_with_Gaia.csv`, `zp_summary.csv`, `zp_all_bands__per_object.csv`, `zp_vs_mag__{band}.png` |

Cells are named `r{row}_c{column}`, patches `{cell}_pr{row}_pc{column}`; rows run along y.

`status` of `run_summary.json` is `running`, `done`, `partial` (the catalogue is complete, but some patches could not be
fitted: `counts.failed_patches` names them, the command ends with exit code 1) or `failed`.

## Zero point

`zp_median` is the median of `mag + 2.5 log10(flux)` over the reliable Gaia stars that survive the clip, weighted by
1/(zp_err² + s²): s is the scatter of the stars beyond their flux errors, so that one very bright star is not the zero
point. A star is clipped when it is farther from the median than `zp.clip_sigma` times both the robust scatter and its
own error. `zp_err_mad` and `zp_err_std` are scatters of the stars, `zp_err_median` is the error of the zero point itself.

## Reliability

"""


def main() -> None:
    """Print the page."""
    sys.stdout.write(
        PAGE
        + flags_markdown().strip()
        + "\n\n## Columns of the catalogue\n"
        + columns_markdown().rstrip()
        + "\n"
    )


if __name__ == "__main__":
    main()
