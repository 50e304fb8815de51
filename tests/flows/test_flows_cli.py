"""The ``tract7dt`` command: exit codes, messages, what it leaves behind, what it imports."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent

LIGHT = """
import sys
sys.argv = ["tract7dt", *{arguments!r}]
from flows.cli import main
try:
    main()
except SystemExit as end:
    code = end.code
heavy = ["prefect", "pandas", "numpy", "astropy", "scipy", "matplotlib", "numba", "photutils", "pyarrow"]
print([name for name in heavy if name in sys.modules], code or 0, file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["dump-config"]])
def test_help_version_and_configuration_answer_at_once(arguments: list[str]) -> None:
    """Nothing heavy is imported: the answer takes a third of a second on an idle machine."""
    done = subprocess.run(
        [sys.executable, "-c", LIGHT.format(arguments=arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.stderr.strip() == "[] 0"
    assert done.stdout


def test_threads_are_set_before_numpy_is_imported(command: Any) -> None:
    """They decide the last bits of sums: NumPy reads them once, when it is imported."""
    code = (
        "import os, sys\n"
        "from flows import execute\n"
        "assert 'numpy' not in sys.modules\n"
        "with execute._prepared(execute.Given('config.yaml'), 'run', False):\n"
        "    print(os.environ['OMP_NUM_THREADS'], os.environ['OPENBLAS_NUM_THREADS'])\n"
    )
    command.config(more="patch_run: {threads_per_process: 3}")
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=command.environment,
        cwd=command.folder,
        check=True,
    )
    assert done.stdout.split() == ["3", "3"]


def test_dumped_configuration_is_the_one_that_is_printed(command: Any) -> None:
    printed = command("dump-config")
    assert printed.code == 0
    assert set(yaml.safe_load(printed.out)) >= {"inputs", "outputs", "epsf", "runtime"}
    written = command("dump-config", "--output", "mine.yaml")
    assert written.code == 0
    assert (command.folder / "mine.yaml").read_text() == printed.out


def test_dump_config_does_not_write_over_a_file(command: Any) -> None:
    (command.folder / "mine.yaml").write_text("precious")
    ran = command("dump-config", "--output", "mine.yaml")
    assert ran.code == 2
    assert (command.folder / "mine.yaml").read_text() == "precious"
    assert command("dump-config", "--output", "mine.yaml", "--force").code == 0


@pytest.mark.parametrize(
    "arguments", [["run"], ["run", "--config", "absent.yaml"], ["no-such-command"], ["merge", "--colour"]]
)
def test_wrong_usage_is_exit_code_2(command: Any, arguments: list[str]) -> None:
    ran = command(*arguments)
    assert ran.code == 2
    assert ran.err
    assert list(command.folder.iterdir()) == []


def test_all_errors_of_a_configuration_are_reported_and_nothing_is_written(command: Any) -> None:
    config = command.config(more="epsf: {max_star: 3, maxiters: many}\nzp: {clip_sigma: -1}")
    ran = command("run", "--config", str(config))
    assert ran.code == 2
    for path in ("epsf.max_star", "epsf.maxiters", "zp.clip_sigma"):
        assert path in ran.err
    assert not ran.work.exists()
    assert "Traceback" not in ran.err


def test_configuration_is_kept_as_given_and_the_log_is_appended_to(command: Any) -> None:
    config = command.config(more="patch_run: {python_exe: /usr/bin/python}  # from an older version")
    for _ in range(2):
        ran = command("run", "--config", str(config), "--direct")
        assert ran.code == 0, ran.err
    kept = sorted(ran.work.glob("config_used_*.yaml"))
    assert kept
    assert re.fullmatch(r"config_used_\d{8}_\d{6}\.yaml", kept[0].name)
    assert kept[0].read_bytes() == config.read_bytes()
    log = (ran.work / "run.log").read_text()
    assert "stage merge: done" in log
    assert "stage merge: cached" in log
    assert "patch_run.python_exe" in log  # the warning of the old key
    assert re.search(r"^\d{4}-\d\d-\d\d .* \| tract7dt\.run_record \| INFO \| stage load_inputs", log, re.M)


@pytest.mark.parametrize(("where", "expected"), [("mine/my.log", "mine/my.log"), ("null", None)])
def test_log_goes_where_the_configuration_says(command: Any, where: str, expected: str | None) -> None:
    config = command.config(more=f"logging: {{file: {where}, level: WARNING}}")
    ran = command("run", "--config", str(config), "--direct", trouble={"merge": "product"})
    assert ran.code == 1
    logs = [path for path in ran.work.rglob("*.log") if path.parent != ran.work / "outputs"]
    assert [str(path.relative_to(ran.work)) for path in logs] == ([expected] if expected else [])
    assert "INFO" not in "".join(path.read_text() for path in logs)


def test_step_commands_run_their_stages_and_renew_their_part_of_the_record(command: Any) -> None:
    config = str(command.config())
    assert command("run", "--config", config, "--direct").code == 0
    ran = command("compute-zp", "--config", config)
    assert ran.code == 0, ran.err
    assert {entry["name"]: entry["command"] for entry in ran.summary["stages"]} == {
        name: "compute-zp" if name == "compute_zp" else "run"
        for name in [entry["name"] for entry in ran.summary["stages"]]
    }
    assert len(ran.summary["stages"]) == 10
    assert (ran.work / "compute-zp.log").is_file()


def test_missing_product_names_the_command_that_makes_it(command: Any) -> None:
    ran = command("compute-zp", "--config", str(command.config()))
    assert ran.code == 1
    assert "tract7dt merge" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("debug", [False, True])
def test_traceback_only_on_request(command: Any, debug: bool) -> None:
    arguments = ["run", "--config", str(command.config()), "--direct"] + ["--debug"] * debug
    ran = command(*arguments, trouble={"bright_mask": "bug"})
    assert ran.code == 1
    assert "stage bright_mask failed: ZeroDivisionError: 1/0" in ran.err
    assert ("Traceback" in ran.err) is debug
    assert "Traceback" in (ran.work / "run.log").read_text()
    assert ran.summary["error"] == {
        "stage": "bright_mask",
        "message": "ZeroDivisionError: 1/0 in the middle of things",
    }


@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_runner_that_is_not_installed_is_refused(command: Any, runner: str) -> None:
    pytest.importorskip("prefect")
    if any((Path(p) / f"prefect_{runner}").is_dir() for p in sys.path):
        pytest.skip(f"prefect-{runner} is installed")
    ran = command("run", "--config", str(command.config(runner)))
    assert ran.code == 2
    assert f"tract7dt-flow[{runner}]" in ran.err


def test_work_dir_that_cannot_be_written_is_an_error_of_the_user(command: Any) -> None:
    (command.folder / "out").write_text("a file stands where the folder should be")
    ran = command("run", "--config", str(command.config()), "--direct")
    assert ran.code == 1
    assert "outputs.work_dir" in ran.err


def test_live_display_on_a_terminal(command: Any) -> None:
    """Lines of the bands and stages are drawn; log lines stay in the file."""
    leader, follower = pty.openpty()
    process = command.start(
        *("run", "--config", str(command.config()), "--direct"),
        stderr=follower,
        env={"FAKE_CELL_S": "0.15", "FAKE_PATCH_S": "0.1", "TERM": "xterm-256color"},
    )
    os.close(follower)
    drawn = b""
    while True:
        try:
            data = os.read(leader, 65536)
        except OSError:
            break
        if not data:
            break
        drawn += data
    os.close(leader)
    assert process.wait(30) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.decode())
    assert b"\x1b[" in drawn
    assert "worker 1" in text
    assert "done m400 -> start m425" in text
    assert re.search(r"patches: \d+/12 done, 1 running, 0 failed", text)
    assert "✓ load_inputs" in text
    assert "INFO" not in text
    process.stdout.close()
