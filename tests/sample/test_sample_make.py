"""The simulated field: its files, its conventions, its noise, and that its truth is true."""

from __future__ import annotations

import filecmp
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pandas as pd
import pytest
import sep
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS

from tract7dt.errors import SampleError
from tract7dt.sample import SampleField, SampleOptions, make_sample
from tract7dt.settings import load_settings

SMALL = SampleOptions(width=400, height=300, bands=3, seed=5, stars=40, galaxies=60)
BANDS = ["m400", "m650", "m875"]


@pytest.fixture(scope="module")
def field(tmp_path_factory: Any) -> SampleField:
    return make_sample(tmp_path_factory.mktemp("sample") / "field", SMALL)


@pytest.fixture(scope="module")
def truth(field: SampleField) -> pd.DataFrame:
    return pd.read_csv(field.truth, dtype={"ID": str, "source_id": str}, keep_default_na=True)


@pytest.fixture(scope="module")
def bands(field: SampleField) -> pd.DataFrame:
    return pd.read_csv(field.truth_bands).set_index("band")


def test_files_and_configuration(field: SampleField) -> None:
    assert [p.name for p in field.images] == [f"7DT_SIM_{b}.fits" for b in BANDS]
    listed = [line for line in field.image_list.read_text().splitlines() if not line.startswith("#")]
    assert listed == [f"images/7DT_SIM_{b}.fits" for b in BANDS]
    loaded = load_settings(field.config)
    assert loaded.warnings == []
    assert loaded.settings.inputs.input_catalog == str(field.catalog)
    assert loaded.settings.inputs.gaiaxp_synphot_csv == str(field.gaia)
    assert loaded.settings.outputs.work_dir == field.directory / "run"
    assert json.loads((field.directory / "sim.json").read_text())["options"]["seed"] == 5
    assert sorted(p.name for p in field.directory.parent.iterdir()) == ["field"]  # nothing left behind


def test_headers_have_what_a_run_needs(field: SampleField, bands: pd.DataFrame) -> None:
    for path, band in zip(field.images, BANDS):
        header = fits.getheader(path)
        row = bands.loc[band]
        assert header["FILTER"] == band
        for keyword, column in (
            ("ZP_AUTO", "zp_auto"),
            ("SKYSIG", "skysig"),
            ("EGAIN", "egain"),
            ("SATURATE", "saturate"),
            ("PEEING", "fwhm_px"),
        ):
            assert header[keyword] == pytest.approx(row[column], rel=1e-9), keyword
        assert header["SEEING"] == pytest.approx(row["fwhm_px"] * 0.505, abs=1e-4)
        assert 1.2 <= header["SEEING"] <= 2.5
        assert 0.0099 <= abs(row["zp_true"] - row["zp_auto"]) <= 0.0601
        assert row["zp_expect"] == pytest.approx(25 + row["zp_true"] - row["zp_auto"], abs=1e-4)
        assert Time(header["DATE-OBS"], scale="utc").jyear == pytest.approx(2024.2016, abs=1e-3)
        pixel_scale = WCS(header).proj_plane_pixel_scales()[0].to_value("arcsec")
        assert pixel_scale == pytest.approx(0.505, rel=1e-6)


def test_positions_agree_with_the_wcs_of_the_images(field: SampleField, truth: pd.DataFrame) -> None:
    x, y = WCS(fits.getheader(field.images[0])).all_world2pix(truth["ra"], truth["dec"], 0)
    assert np.abs(x - truth["x"]).max() < 1e-5
    assert np.abs(y - truth["y"]).max() < 1e-5


def test_fluxes_of_the_truth_are_on_the_scale_of_the_headers(
    truth: pd.DataFrame, bands: pd.DataFrame
) -> None:
    for band in BANDS:
        expected = 10 ** (-0.4 * (truth[f"mag_{band}"] - bands.loc[band, "zp_expect"]))
        assert np.allclose(truth[f"flux_{band}"], expected, rtol=1e-5, atol=1e-6)


def test_who_is_in_which_file(field: SampleField, truth: pd.DataFrame) -> None:
    catalogue = pd.read_csv(field.catalog, dtype={"ID": str})
    gaia = pd.read_csv(field.gaia, dtype={"source_id": str})
    assert len(truth) == 100
    assert (truth["type"] == "STAR").sum() == 40
    assert list(catalogue["ID"]) == [f"{i:06d}" for i in range(1, len(catalogue) + 1)]
    assert set(catalogue["ID"]) == set(truth.loc[truth["catalogued"], "ID"])
    assert set(gaia["source_id"]) == set(truth.loc[truth["gaia"], "source_id"])
    assert gaia["source_id"].is_unique
    hidden = truth[~truth["catalogued"] & ~truth["gaia"]]
    assert len(hidden) == 1
    assert hidden["ref_mag"].between(13, 15).all()
    assert truth["saturated"].any()
    assert list(catalogue.columns) == ["ID", "RA", "DEC", "TYPE", "ELL", "THETA", "Re"]
    assert list(gaia.columns[:4]) == ["source_id", "ra", "dec", "phot_g_mean_mag"]
    assert [c for c in gaia if c.startswith("mag_")] == [f"mag_{b}" for b in BANDS]
    both = truth[truth["catalogued"]].merge(catalogue, on="ID", suffixes=("", "_cat"))
    distance = np.hypot(
        (both["RA"] - both["ra"]) * np.cos(np.radians(both["dec"])), both["DEC"] - both["dec"]
    )
    assert 0.02 < np.median(distance) * 3600 < 0.08  # 0.04 arcsec per axis


def test_gaia_stars_move_to_where_the_image_shows_them(field: SampleField, truth: pd.DataFrame) -> None:
    gaia = pd.read_csv(field.gaia, dtype={"source_id": str})
    moved = SkyCoord(
        gaia["ra"].to_numpy() * u.deg,
        gaia["dec"].to_numpy() * u.deg,
        pm_ra_cosdec=gaia["pmra"].to_numpy() * u.mas / u.yr,
        pm_dec=gaia["pmdec"].to_numpy() * u.mas / u.yr,
        obstime=Time(gaia["ref_epoch"].to_numpy(), format="jyear"),
        distance=1 * u.kpc,
    ).apply_space_motion(new_obstime=Time(fits.getheader(field.images[0])["DATE-OBS"], scale="utc"))
    shown = truth.set_index("source_id").loc[gaia["source_id"]]
    there = SkyCoord(shown["ra"].to_numpy() * u.deg, shown["dec"].to_numpy() * u.deg)
    still = SkyCoord(gaia["ra"].to_numpy() * u.deg, gaia["dec"].to_numpy() * u.deg)
    assert moved.separation(there).to_value("mas").max() < 0.1
    assert still.separation(there).to_value("mas").max() > 20


def test_an_aperture_finds_the_fluxes_of_the_truth(tmp_path: Path) -> None:
    """Wide circles around bright stars, by sep, on a field of nothing else."""
    options = SampleOptions(
        width=900, height=900, bands=("m500",), stars=10, galaxies=0, saturated=0, uncatalogued=0, seed=3,
        mag_limit=17.0, nan_regions=False, trail=False, sky_residual=0.0, exposures=10000,
    )  # fmt: skip
    made = make_sample(tmp_path / "f", options)
    data, header = fits.getdata(made.images[0], header=True)
    truth = pd.read_csv(made.truth)
    band = pd.read_csv(made.truth_bands).iloc[0]
    inside = truth["x"].between(60, 840) & truth["y"].between(60, 840)
    xy = truth[["x", "y"]].to_numpy()
    alone = np.array([np.sort(np.hypot(*(xy - p).T))[1] > 110 for p in xy])
    chosen = truth[inside & alone & ~truth["saturated"]]
    assert len(chosen) >= 3
    radius = 50.0
    flux, *_ = sep.sum_circle(data.astype(float), chosen["x"], chosen["y"], radius, subpix=0)
    alpha = band["fwhm_px"] / 2 / np.sqrt(2 ** (1 / band["beta"]) - 1)
    inside_share = 1 - (1 + (radius / alpha) ** 2) ** (1 - band["beta"])
    scaled = flux * 10 ** (-0.4 * (header["ZP_AUTO"] - 25)) / inside_share
    assert np.abs(scaled / chosen["flux_m500"] - 1).max() < 0.01


def test_noise_is_what_the_header_says_and_gives_the_depth(tmp_path: Path) -> None:
    galsim = pytest.importorskip("galsim")
    options = SampleOptions(
        width=500, height=500, bands=("m400", "m875"), stars=0, galaxies=0, exposures=9,
        nan_regions=False, trail=False,
    )  # fmt: skip
    made = make_sample(tmp_path / "f", options)
    bands = pd.read_csv(made.truth_bands)
    for path, band in zip(made.images, bands.itertuples()):
        data, header = fits.getdata(path, header=True)
        y, x = np.mgrid[:500, :500] / 250 - 1
        plane = np.stack([np.ones(data.size), x.ravel(), y.ravel()], axis=1)
        fitted = np.linalg.lstsq(plane, data.ravel().astype(float), rcond=None)[0]
        noise = (data.ravel() - plane @ fitted).std()
        assert noise == pytest.approx(header["SKYSIG"], rel=0.01)
        assert fitted == pytest.approx([band.sky0, band.skyx, band.skyy], abs=5 * noise / 500 * 1.8)
        psf = galsim.Moffat(beta=band.beta, fwhm=band.fwhm_px)
        stamp = psf.drawImage(nx=201, ny=201, scale=1, method="no_pixel").array.astype(float)
        five_sigma = 5 * header["SKYSIG"] / np.sqrt((stamp**2).sum())
        depth = {"m400": 18.7, "m875": 16.0}[band.band] + 1.25 * np.log10(9)
        assert band.zp_true - 2.5 * np.log10(five_sigma) == pytest.approx(depth, abs=0.01)


def test_same_seed_same_field_other_seed_other_field(field: SampleField, tmp_path: Path) -> None:
    again = make_sample(tmp_path / "again", SMALL)
    names = [p.relative_to(field.directory).as_posix() for p in field.directory.rglob("*") if p.is_file()]
    same, different, missing = filecmp.cmpfiles(field.directory, again.directory, names, shallow=False)
    assert (len(same), different, missing) == (len(names), [], [])
    other = make_sample(tmp_path / "other", replace(SMALL, seed=6, bands=1))
    assert not filecmp.cmp(field.truth, other.truth, shallow=False)
    assert not filecmp.cmp(field.images[0], other.images[0], shallow=False)


def test_a_band_does_not_depend_on_the_others(field: SampleField, tmp_path: Path) -> None:
    """m400 is the first band of both, so it has the same defects."""
    alone = make_sample(tmp_path / "alone", replace(SMALL, bands=("m400", "m425", "m450")))
    assert filecmp.cmp(field.images[0], alone.images[0], shallow=False)


def test_defects_are_there_and_can_be_left_out(field: SampleField, tmp_path: Path) -> None:
    blank = [int(np.isnan(fits.getdata(p)).sum()) for p in field.images]
    assert blank[0] == 2 * 180  # two columns over 60 % of the height
    assert blank[1] == 10 * 8
    assert blank[2] == 0
    clean = make_sample(tmp_path / "clean", replace(SMALL, nan_regions=False, trail=False, edge_noise_pix=0))
    assert not any(np.isnan(fits.getdata(p)).any() for p in clean.images)
    trail = fits.getdata(field.images[2]).astype(float) - fits.getdata(clean.images[2])
    assert np.median(trail.max(axis=1)) > 8 * fits.getheader(field.images[2])["SKYSIG"]
    edged = make_sample(tmp_path / "edge", replace(SMALL, nan_regions=False, edge_noise_pix=60, bands=1))
    data = fits.getdata(edged.images[0])
    assert np.isnan(data[:5]).all()
    assert np.isfinite(data[5:-5, 5:-5]).all()
    assert np.std(data[6:12, 100:300]) > 2 * fits.getheader(edged.images[0])["SKYSIG"]


def test_flux_columns_and_no_shapes(tmp_path: Path) -> None:
    made = make_sample(tmp_path / "f", replace(SMALL, flux_columns=True, shape_columns=False, stars=300))
    catalogue = pd.read_csv(made.catalog, dtype={"ID": str})
    assert list(catalogue.columns) == ["ID", "RA", "DEC", "TYPE", *(f"FLUX_{b}" for b in BANDS)]
    truth = pd.read_csv(made.truth, dtype={"ID": str}).set_index("ID").loc[catalogue["ID"]]
    ratio = catalogue["FLUX_m400"].to_numpy() / truth["flux_m400"].to_numpy()
    assert 0.9 < np.nanmedian(ratio) < 1.1
    assert 0 < np.isnan(ratio).sum() < 40


def test_an_empty_field_is_a_field(tmp_path: Path) -> None:
    made = make_sample(tmp_path / "f", replace(SMALL, stars=0, galaxies=0, bands=1))
    assert len(pd.read_csv(made.catalog)) == 0
    assert len(pd.read_csv(made.gaia)) == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 10}, "width: 10 given; at least 64"),
        ({"exposures": 0, "stars": -1}, "exposures: 0 given; at least 1; stars: -1 given; not below 0"),
        ({"density": "full"}, "density: 'full' given; one of sparse, normal, dense, crowded"),
        ({"blank_type": 2.0}, "blank_type: 2.0 given; from 0 to 1"),
        ({"bands": 21}, "bands: 21 given; there are 1 to 20"),
        ({"bands": ("m401",)}, r"bands: \['m401'\] given"),
        ({"bands": ("m400", "m400")}, "name each once"),
    ],
)
def test_wrong_options(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SampleError, match=message):
        make_sample(tmp_path / "f", SampleOptions(**wrong))
    assert not (tmp_path / "f").exists()


def test_what_is_there_is_not_overwritten_unasked(tmp_path: Path) -> None:
    tiny = SampleOptions(width=64, height=64, bands=1, stars=1, galaxies=0)
    target = tmp_path / "f"
    target.mkdir()
    make_sample(target, tiny)  # an empty folder is filled
    with pytest.raises(SampleError, match="is there and not empty; --force replaces it"):
        make_sample(target, tiny)
    (target / "extra").write_text("x")
    make_sample(target, tiny, force=True)
    assert not (target / "extra").exists()
    mine = tmp_path / "thesis"
    mine.mkdir()
    (mine / "chapter.tex").write_text("x")
    with pytest.raises(SampleError, match="does not look like a sample field"):
        make_sample(mine, tiny, force=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(SampleError, match="is not a folder"):
        make_sample(tmp_path / "file", tiny, force=True)


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    tiny = SampleOptions(width=64, height=64, bands=2, stars=1, galaxies=0)
    made = make_sample(tmp_path / "f", tiny)
    before = made.images[0].read_bytes()

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_sample(tmp_path / "f", replace(tiny, seed=9), force=True, progress=stop)
    assert made.images[0].read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_the_simulator_needs_no_other_renderer() -> None:
    others = ["galsim", "matplotlib", "prefect"]
    code = f"import sys, tract7dt.sample; print([m for m in {others} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
