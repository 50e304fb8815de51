"""Rows about the configuration, the work_dir and what already lies in it."""

from __future__ import annotations

import contextlib
import json
import shutil

from badinput_field import TinyField
from badinput_images import assert_measured
from badinput_rows import Changes, catalogue_of, row

FOLDERS = "Configuration and work_dir"


@row(
    FOLDERS,
    "YAML with a Python object (`!!python/object/apply:os.system`)",
    "the run ends; nothing is made of it",
    "not valid YAML: could not determine a constructor for the tag",
    2,
)
def unsafe_yaml(tiny: TinyField) -> None:
    path = tiny.config()
    path.write_text(path.read_text() + f"x: !!python/object/apply:os.system ['touch {tiny.folder}/owned']\n")


@unsafe_yaml.checked
def nothing_was_run(tiny: TinyField) -> None:
    assert not (tiny.folder / "owned").exists()


@row(
    FOLDERS,
    "YAML that grows a billionfold by aliases",
    "the run ends at once",
    "laughs: unknown key; the closest known key is …",
    2,
)
def billion_laughs(tiny: TinyField) -> None:
    path = tiny.config()
    lines = ["laughs:", "  a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"  a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    path.write_text(path.read_text() + "\n".join(lines) + "\n")


@row(
    FOLDERS,
    "An unknown key, a value out of range",
    "the run ends, naming all of them and what is allowed",
    "epsf.ngrid: -1 given; allowed: whole number >= 1 … zp.clip_sigmas: unknown key; the closest known key is zp.clip_sigma",  # noqa: E501
    2,
)
def wrong_keys(tiny: TinyField) -> Changes:
    return {"epsf": {"ngrid": -1}, "zp": {"clip_sigmas": 3}}


@row(
    FOLDERS,
    "tile_name = `../../x`",
    "the run ends: it names files",
    "becomes part of file names: no slash",
    2,
)
def tile_as_path(tiny: TinyField) -> Changes:
    return {"inputs": {"tile_name": "../../x"}}


@row(
    FOLDERS,
    "A final_catalog that is the input catalogue",
    "the run ends; the input stays as it is",
    "inputs.input_catalog: …catalogue.csv would be overwritten by the run",
    2,
)
def output_is_input(tiny: TinyField) -> Changes:
    return {"outputs": {"final_catalog": "../catalogue.csv"}}


@output_is_input.checked
def input_is_whole(tiny: TinyField) -> None:
    assert tiny.rows()[0] == ["ID", "RA", "DEC", "TYPE"]


@row(
    FOLDERS,
    "A URL with a password in it",
    "the run ends; the password is not repeated",
    "inputs.input_catalog: 'https://***@localhost/catalogue.csv' given; allowed: path or URL (holds a secret, and URLs end up in logs",  # noqa: E501
    2,
)
def secret_in_url(tiny: TinyField) -> Changes:
    return {"inputs": {"input_catalog": "https://me:hunter2hunter2@localhost/catalogue.csv"}}


@secret_in_url.checked
def secret_is_nowhere(tiny: TinyField) -> None:
    for path in tiny.work.rglob("*"):
        assert path.is_dir() or b"hunter2" not in path.read_bytes(), path


@row(
    FOLDERS,
    "A work_dir that cannot be written to",
    "the run ends",
    "outputs.work_dir: … cannot be written to: …",
    1,
)
def unwritable(tiny: TinyField) -> Changes:
    # Below a file: permissions would not stop the superuser, whom CI and containers run tests as.
    return {"outputs": {"work_dir": str(tiny.catalogue / "work")}}


@row(
    FOLDERS,
    "A work_dir of another field",
    "everything is made anew; nothing of the other field is left in the catalogue",
    "merged 4 rows: 4 fitted",
    0,
)
def another_field(tiny: TinyField) -> None:
    from badinput_run import run_command

    tiny.config({"inputs": {"tile_name": "OTHER"}})
    first = run_command(tiny)
    assert first.code == 0, first.said
    rows = tiny.rows()
    tiny.write_rows([rows[0], *([f"b{line[0]}", *line[1:]] for line in rows[1:5])])


another_field.checked(assert_measured)


@row(
    FOLDERS,
    "A second run in one work_dir at the same time",
    "the second run ends; it names the first and when it began",
    "is in use by run … of … on …, process …, since …; wait until it ends, or end it",
    1,
)
def second_run(tiny: TinyField) -> None:
    from tract7dt.reuse import locked
    from tract7dt.settings import load_settings

    tiny.held = contextlib.ExitStack()
    tiny.held.enter_context(locked(load_settings(tiny.config()).settings, "the-first-run"))


@row(
    FOLDERS,
    "The lock of a run that was killed",
    "the run goes on; the log names the other one",
    "the lock of run the-dead-run of me on here, process 1, since … is stale: it ended without a word (killed?)",
    0,
)
def stale_lock(tiny: TinyField) -> None:
    tiny.work.mkdir()
    said = {"user": "me", "host": "here", "pid": 1, "run": "the-dead-run", "started": "2026-01-01T00:00:00"}
    (tiny.work / ".lock").write_text(json.dumps(said))


stale_lock.checked(assert_measured)


@row(
    FOLDERS,
    "Products of an earlier run that were damaged or removed",
    "they are made again",
    "merged 5 rows: 5 fitted, 5 reliable",
    0,
)
def damaged_products(tiny: TinyField) -> None:
    from badinput_run import run_command

    tiny.config()
    first = run_command(tiny)
    assert first.code == 0, first.said
    (tiny.work / "frames" / "m450.npy").write_bytes(b"\0" * 500)
    (tiny.work / "sources" / "sources_loaded.parquet").write_bytes(b"PAR1")
    (payload,) = (tiny.work / "patch_payloads").glob("*.fits*")
    payload.write_bytes(payload.read_bytes()[:3000])
    shutil.rmtree(tiny.work / "EPSFs")
    (tiny.work / "output_catalog.csv").unlink()


@damaged_products.checked
def as_if_nothing_had_been(tiny: TinyField) -> None:
    assert_measured(tiny)
    assert len(catalogue_of(tiny)) == 5


@row(
    FOLDERS,
    "A disk, or a quota, that is full in the middle of a write",
    "the run ends; no half file stays; when there is room again the next run goes on",
    "stage load_inputs failed: OSError: … what to do: check the disk, the mount or the connection, then run again",
    1,
)
def full_disk(tiny: TinyField) -> None:
    # What the kernel does at a quota, without needing one: a write beyond the limit fails with EFBIG.
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    tiny.held = contextlib.ExitStack()
    tiny.held.callback(resource.setrlimit, resource.RLIMIT_FSIZE, (soft, hard))


@full_disk.checked
def next_run_goes_on(tiny: TinyField) -> None:
    from badinput_run import run_command

    again = run_command(tiny)
    assert again.code == 0, again.said
    assert_measured(tiny)
    assert not list(tiny.work.rglob(".*.tmp*"))
