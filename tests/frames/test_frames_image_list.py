from __future__ import annotations

from pathlib import Path

import pytest

from tract7dt.errors import InputError
from tract7dt.frames import read_image_list


def test_blank_lines_comments_and_urls(tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    listing.write_bytes(
        b"\xef\xbb\xbf# header\r\n\r\n  /a/b.fits  # good seeing\r\ns3://bucket/c.fits.gz\r\n"
    )
    assert read_image_list(str(listing), tmp_path) == ["/a/b.fits", "s3://bucket/c.fits.gz"]


def test_relative_entries_belong_to_the_configuration_then_to_the_list(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "both.fits").touch()
    (tmp_path / "lists" / "both.fits").touch()
    (tmp_path / "lists" / "beside.fits").touch()
    listing = tmp_path / "lists" / "list.txt"
    listing.write_text("both.fits\nbeside.fits\nnowhere.fits\n")
    assert read_image_list(str(listing), tmp_path) == [
        str(tmp_path / "both.fits"),
        str(tmp_path / "lists" / "beside.fits"),
        str(tmp_path / "nowhere.fits"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# nothing\n\n", "found none"),
        (b"\xff\xfe\x00\x01", "found binary data"),
        (b"x.fits\n./x.fits\n", "line 2: .*x.fits is already in line 1"),
        (b"x.fits\nfolder\n", "line 2: .*folder is a folder"),
    ],
)
def test_bad_lists_name_the_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "folder").mkdir()
    listing = tmp_path / "list.txt"
    listing.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_image_list(str(listing), tmp_path)


def test_missing_list_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_image_list(str(tmp_path / "none.txt"), tmp_path)
    with pytest.raises(InputError, match="found a folder"):
        read_image_list(str(tmp_path), tmp_path)


def test_list_by_url(tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text("x.fits\n")
    assert read_image_list(f"file://{listing}", tmp_path / "elsewhere") == [f"file://{tmp_path}/x.fits"]


def test_entries_name_the_field_and_the_night(tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text("/data/{night}/{tile_name}_m400.fits\ns3://raw/{night}/m425.fits\n")
    names = {"tile_name": "UDS", "night": "2026-11-20"}
    assert read_image_list(str(listing), tmp_path, names) == [
        "/data/2026-11-20/UDS_m400.fits",
        "s3://raw/2026-11-20/m425.fits",
    ]
    with pytest.raises(InputError, match=r"line 1: .*which night.*\n.*line 2: "):
        read_image_list(str(listing), tmp_path, {"tile_name": "UDS"})


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    long = "x" * 300
    (tmp_path / "list.txt").write_text(f"{long}.fits\n")
    assert read_image_list(str(tmp_path / "list.txt"), tmp_path) == [f"{tmp_path}/{long}.fits"]
    with pytest.raises(InputError, match="File name too long"):
        read_image_list(str(tmp_path / long), tmp_path)
