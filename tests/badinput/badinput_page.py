"""The three tables of docs/troubleshooting.md, counted: inputs tried, faults survived, invariants held."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from badinput_rows import ROWS, Row

__all__ = ["FAULTS", "INVARIANTS", "PAGE", "Fact", "defined", "examples", "page_text"]

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "troubleshooting.md"
#: What hypothesis tries where a test does not say.
_DEFAULT_EXAMPLES = 100
_END = "<!-- end of what write_page.py writes -->\n"


@dataclass(frozen=True)
class Fact:
    """A fault that is survived, or an invariant: what, how it is tried, and the tests that do it.

    In ``how``, ``{n}`` stands for the number of examples that hypothesis makes for the tests, together.
    """

    what: str
    how: str
    tests: tuple[str, ...]


_EVERYWHERE = "tests/flows/test_flows_faults_everywhere.py"
_OUTSIDE = "tests/flows/test_flows_faults_outside.py"
_WORKERS = "tests/flows/test_flows_faults.py"
_DIRECT = "tests/faults/test_faults_everywhere.py"

FAULTS = (
    Fact(
        "SIGKILL of a run without a server",
        "at each of the some 110 moments at which it puts a file in its place (3 of them in `make test`)",
        (f"{_DIRECT}::test_killed_and_gone_on",),
    ),
    Fact(
        "SIGKILL of the flow process in every stage",
        "ten runs in one work_dir, each killed a stage further than the last, with a file half written; "
        "the server is told that they crashed",
        (f"{_EVERYWHERE}::test_killed_in_every_stage_each_run_goes_on_where_the_last_one_was",),
    ),
    Fact(
        "SIGKILL or SIGTERM of the flow process in a fit",
        "with one patch hanging, the others done",
        (f"{_WORKERS}::test_run_that_was_killed_goes_on_where_it_was",),
    ),
    Fact(
        "SIGTERM while everything hangs",
        "with tasks in the queue",
        (f"{_WORKERS}::test_sigterm_ends_the_run_at_once",),
    ),
    Fact(
        "SIGKILL of a worker in a fit, from inside and outside, once and twice; a worker that exits",
        "the patch alone is tried again, then recorded as failed",
        (
            f"{_WORKERS}::test_what_happens_in_workers_stays_with_their_patches",
            f"{_WORKERS}::test_worker_that_is_killed_from_outside_costs_nothing",
            f"{_WORKERS}::test_faults_in_real_fits_cost_their_patches_only",
        ),
    ),
    Fact(
        "out of memory in one patch",
        "in a real fit, under `runtime.worker_memory_mb`",
        (f"{_WORKERS}::test_faults_in_real_fits_cost_their_patches_only",),
    ),
    Fact(
        "a patch that hangs",
        "until `runtime.patch_timeout_seconds`",
        (
            f"{_WORKERS}::test_what_happens_in_workers_stays_with_their_patches",
            "tests/flows/test_flows_pool.py::test_patch_that_hangs_is_recorded_and_not_tried_again",
        ),
    ),
    Fact(
        "the API server gone for 60 s and back",
        "killed while inputs are read, ePSFs are built, patches are fitted; the same port and database",
        (f"{_OUTSIDE}::test_a_server_that_is_gone_for_a_minute",),
    ),
    Fact(
        "an object store that refuses",
        "wrong credentials at the end of a run",
        (
            "tests/flows/test_flows_publication.py"
            "::test_run_publishes_and_a_store_that_refuses_costs_no_catalogue",
        ),
    ),
    Fact(
        "an object store that is slow",
        "half a second for each request",
        (f"{_OUTSIDE}::test_a_store_that_is_slow_delays_the_run_and_nothing_else",),
    ),
    Fact(
        "an object store that fails half-way through an upload",
        "503, or hangs up, for good after six objects; then it works again",
        (f"{_OUTSIDE}::test_a_store_that_fails_half_way_costs_the_publication_alone",),
    ),
    Fact(
        "a disk that is full in the middle of a write",
        "a file system with room for 8, 56, 104, ... kB until the run fits; and of the flow's for a tenth to most "
        "of what it needs",
        (
            f"{_DIRECT}::test_disk_that_is_full_in_the_middle_of_a_write",
            f"{_EVERYWHERE}::test_disk_that_is_full_in_the_middle_of_a_write",
        ),
    ),
    Fact(
        "a clock that goes back by a day",
        "at every tenth of the moments above; and in three stages of the flow",
        (f"{_DIRECT}::test_clock_that_goes_back", f"{_EVERYWHERE}::test_clock_that_goes_back_a_day"),
    ),
)

_PAYLOAD = "tests/patches/test_patches_payload_file.py"
_PROPERTIES = "tests/properties/test_properties.py"
_DETERMINISM = "tests/properties/test_determinism.py"
_SECRETS = "tests/badinput/test_badinput_secrets.py"

INVARIANTS = (
    Fact(
        "a configuration survives dump and load",
        "{n}",
        ("tests/settings/test_settings_text.py::test_any_configuration_survives_dump_and_load",),
    ),
    Fact(
        "any table, any pixels and masks survive a payload, to the bit",
        "{n}",
        (
            f"{_PAYLOAD}::test_any_table_and_any_band_name_come_back",
            f"{_PROPERTIES}::test_any_pixels_and_masks_survive_a_payload",
        ),
    ),
    Fact(
        "a flipped bit in a payload is told, or harmless",
        "{n}",
        (f"{_PAYLOAD}::test_a_flipped_bit_is_told_or_harmless",),
    ),
    Fact(
        "the merge keeps every row once, whatever patches failed or were left out, in any order of the results",
        "{n}",
        (f"{_PROPERTIES}::test_merge_keeps_every_row_once_whatever_patches_failed",),
    ),
    Fact(
        "base boxes tile the frame for any geometry; a position is in exactly one",
        "{n}",
        ("tests/patches/test_patches_division.py::test_every_position_of_the_frame_has_exactly_one_patch",),
    ),
    Fact(
        "the WCS of the working frame (TAN, SIP, TPV; turned, flipped) agrees with the image's within 1e-9 deg",
        "{n}",
        (f"{_PROPERTIES}::test_wcs_of_the_crop_agrees_with_that_of_the_image",),
    ),
    Fact(
        "a flux scale shifts the zero point and nothing else",
        "{n}",
        (
            "tests/catalog/test_catalog_zeropoint.py"
            "::test_a_flux_scale_shifts_the_zero_point_and_nothing_else",
        ),
    ),
    Fact(
        "order of the patches, number of workers and of their threads do not change a bit of fits and catalogues",
        "3 orders; all runners; 1, 2, 3 and 5 threads",
        (
            f"{_DETERMINISM}::test_order_and_workers_do_not_matter",
            "tests/regression/test_regression_runners.py::test_the_same_bytes",
            "tests/fit/test_fit_threads.py::test_any_number_of_threads_gives_the_same_bits",
        ),
    ),
    Fact(
        "a changed pixel changes the payloads and fits of the patches that see it, and no other (PSFs held)",
        "4 places",
        (f"{_DETERMINISM}::test_a_changed_pixel_changes_the_patches_that_see_it",),
    ),
    Fact(
        "no planted secret in any file, log or server record of a run",
        "5 places in the environment, 6 in the configuration",
        (
            f"{_SECRETS}::test_planted_secrets_reach_no_output",
            f"{_SECRETS}::test_secret_in_the_configuration_is_refused_and_not_repeated",
        ),
    ),
    Fact(
        "a row that is not fitted costs no call of its own in merge and catalogue",
        "1000 and 8000 rows",
        ("tests/catalog/test_catalog_many_rows.py::test_rows_cost_no_calls",),
    ),
)


def _function(test: str) -> ast.FunctionDef | None:
    path, name = test.split("::")
    tree = ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    return found[0] if found else None


def defined(test: str) -> bool:
    """Whether there is such a test."""
    return _function(test) is not None


def examples(test: str) -> int:
    """How many examples hypothesis makes for a test; 0 for one without."""
    function = _function(test)
    calls = [d for d in function.decorator_list if isinstance(d, ast.Call)] if function else []
    if not any(ast.unparse(call.func) == "given" for call in calls):
        return 0
    said = [word.value for call in calls for word in call.keywords if word.arg == "max_examples"]
    return int(ast.literal_eval(said[0])) if said else _DEFAULT_EXAMPLES


def _facts(name: str, column: str, facts: tuple[Fact, ...]) -> str:
    lines = [
        f"**{len(facts)} {name}.**",
        "",
        f"| {name.split()[0][:-1]} | {column} | test |",
        "|---|---|---|",
    ]
    for fact in facts:
        how = fact.how.replace("{n}", str(sum(map(examples, fact.tests))))
        files = dict.fromkeys(f"`{test.split('::')[0]}`" for test in fact.tests)
        lines.append(f"| {fact.what} | {how} | {', '.join(files)} |")
    return "\n".join([*lines, ""])


def _message(row: Row) -> str:
    return "`" + row.message.replace("|", "\\|") + "`"


def _inputs() -> str:
    text = [f"**{sum(map(len, ROWS.values()))} inputs.**", ""]
    for section, rows in ROWS.items():
        text += [
            f"### {section}",
            "",
            "| what arrives | what happens | message | exit code |",
            "|---|---|---|---|",
        ]
        text += [f"| {r.what} | {r.happens} | {_message(r)} | {r.code} |" for r in rows]
        text.append("")
    return "\n".join(text)


def page_text(page: str) -> str:
    """The page with its three tables written anew."""
    tables = {
        "faults": _facts("faults survived", "injected", FAULTS),
        "invariants": _facts("invariants held", "tried", INVARIANTS),
        "inputs": _inputs(),
    }
    for name, table in tables.items():
        mark = f"<!-- {name}: python tests/badinput/write_page.py -->\n"
        head, rest = page.split(mark)
        page = head + mark + table + _END + rest.split(_END, 1)[1]
    return page
