"""The pool of worker processes by itself: what comes back, what a dead worker costs, that none is left."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pool_stages
import pytest

from flows import pool
from flows.pool import WorkerPool, wire
from tasks.transient import is_passing
from tract7dt.errors import InputError, StageError
from tract7dt.progress import open_folder, read_progress
from tract7dt.resources import read_usage
from tract7dt.settings import settings_from_dict
from tract7dt.store import WorkDir, ref_to, write_text
from tract7dt.types import Ref

HERE = Path(__file__).resolve().parent


def make_settings(folder: Path, **runtime: Any) -> Any:
    return settings_from_dict(
        {
            "inputs": {"tile_name": "Ä 1", "input_catalog": "c.csv", "image_list_file": "l.txt"},
            "outputs": {"work_dir": str(folder / "out")},
            "runtime": runtime,
        },
        base_dir=folder,
    ).settings


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., WorkerPool]]:
    """Makes pools whose workers know the stages of this folder."""
    monkeypatch.syspath_prepend(str(HERE))
    (tmp_path / "out").mkdir()
    pools: list[WorkerPool] = []

    def make(**runtime: Any) -> WorkerPool:
        pools.append(WorkerPool(make_settings(tmp_path, **runtime), kernels=False))
        return pools[-1]

    with open_folder(tmp_path / "out"):
        yield make
        for made in pools:
            made.close()


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def payloads(folder: Path, *kinds: str) -> list[Ref]:
    refs = []
    for number, kind in enumerate(kinds):
        write_text(folder / "payloads" / f"p{number}.fits", kind)
        refs.append(ref_to(folder / "payloads" / f"p{number}.fits", "payload"))
    return refs


def fitted(folder: Path) -> list[str]:
    return [line.split()[0] for line in (folder / "out" / "fitted").read_text().splitlines()]


def metas(fits: list[Ref]) -> list[dict[str, Any]]:
    return [json.loads(Path(ref.path).read_text()) for ref in fits]


# --- what comes back -------------------------------------------------------------------------------------


def test_values_pass_and_prints_do_not_disturb(start: Callable[..., WorkerPool]) -> None:
    ref = Ref("/a/b", "0" * 64, "field")
    value = start().call(pool_stages.echo, ref, "ü\n", 1.5, None, [ref, 2])
    assert value[:5] == [ref, "ü\n", 1.5, None, [ref, 2]]
    assert value[5] == "Ä 1"
    assert value[6] != os.getpid()


def test_workers_stand_still_while_they_are_held_and_go_on_after_whatever_happened(
    start: Callable[..., WorkerPool],
) -> None:
    made = start()
    made.start(2)

    def states() -> set[str]:
        return {Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] for pid in made.pids}

    def read_nothing() -> None:
        with made.held():
            assert wait_for(lambda: states() == {"T"}, 10)
            raise InputError("no images")

    with pytest.raises(InputError, match="no images"):
        read_nothing()
    assert wait_for(lambda: "T" not in states(), 10)
    pids = set(made.pids)
    assert len(pids) == 2
    with made.held():
        victim = min(pids)
        os.kill(victim, signal.SIGKILL)
        assert wait_for(lambda: gone(victim), 10)
    value = made.call(pool_stages.echo, 1)
    assert value[0] == 1


@pytest.mark.parametrize("cores", [2, 64])
def test_workers_wait_for_the_images_where_there_are_few_cores(
    cores: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from flows import photometry, runners

    for module in (photometry, runners):
        monkeypatch.setattr(
            module, "worker_count", lambda wanted, most=None: cores if wanted == "auto" else wanted
        )
    done = []

    class Pool:
        def start(self, count: int, for_epsf: int = 0) -> None:
            done.append(("start", count, for_epsf))

        @contextlib.contextmanager
        def held(self) -> Iterator[None]:
            done.append("held")
            yield
            done.append("let go")

    with photometry.warming(Pool(), make_settings(tmp_path, max_workers=2)):  # type: ignore[arg-type]
        done.append("read")
    if cores == 2:
        assert done == ["held", "read", "let go", ("start", 2, 2)]
    else:
        assert done == [("start", 2, 2), "read"]


@pytest.mark.parametrize(
    ("pixels", "runner", "expected"),
    [
        (100e6, "process", ["dismiss", "stages", ("start", 2)]),
        (1e6, "process", ["stages"]),
        (100e6, "dask", ["stages"]),
    ],
)
def test_a_large_field_has_fresh_workers_for_its_fits(
    pixels: float, runner: str, expected: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from flows import photometry

    monkeypatch.setattr(photometry, "n_workers", lambda settings, what: 2)
    monkeypatch.setattr(photometry.reuse, "pixels_of", lambda field: pixels)
    done: list[Any] = []

    class Pool:
        def dismiss(self) -> None:
            done.append("dismiss")

        def start(self, count: int, for_epsf: int = 0) -> None:
            done.append(("start", count))

    settings = make_settings(tmp_path, task_runner=runner)
    with photometry.renewed(Pool(), settings, Ref("field.json", "", "field")):  # type: ignore[arg-type]
        done.append("stages")
    assert done == expected


@pytest.mark.parametrize("has_built", [True, False])
def test_workers_that_have_built_epsfs_end_before_the_masks_of_a_large_field(
    has_built: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from flows import photometry
    from flows.parameters import Given
    from tract7dt.run_record import RunRecord

    done: list[str] = []

    class Pool:
        def dismiss(self) -> None:
            done.append("dismiss")

        def start(self, count: int, for_epsf: int = 0) -> None:
            done.append("start")

        def close(self) -> None:
            done.append("close")

    def epsf(run: Any, *_: Any) -> None:
        done.append("build_epsf")
        run._has_built_epsfs = has_built

    def stage(run: Any, name: str, *_: Any) -> Any:
        done.append(name)
        return (None, None)

    monkeypatch.setattr(photometry.reuse, "pixels_of", lambda field: 100e6)
    monkeypatch.setattr(photometry._Run, "_do", stage)
    monkeypatch.setattr(photometry._Run, "_epsf", epsf)
    monkeypatch.setattr(photometry._Run, "_fits", lambda run, *_: None)
    settings = make_settings(tmp_path)
    given = Given("c.yaml", None, None, {}, (), (), False)
    photometry._Run(settings, RunRecord(settings, "run"), given, Pool()).stages_in_order()  # type: ignore[arg-type]
    between = done[done.index("build_epsf") + 1 : done.index("build_patch_inputs")]
    stages = ["build_patches", "compose_final_masks"]
    assert between == (["dismiss", *stages, "start"] if has_built else stages)


def test_dismissed_workers_are_gone_and_others_take_their_place(start: Callable[..., WorkerPool]) -> None:
    made = start(max_workers=2)
    made.start(2)
    first = made.call(pool_stages.count)[0]
    before = made.pids
    assert first in before
    made.dismiss()
    assert all(gone(pid) for pid in before)
    assert made.pids == []
    assert made.call(pool_stages.count)[0] not in before


def test_workers_end_with_the_fits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The merge has their memory."""
    from flows import photometry
    from flows.parameters import Given
    from tract7dt.run_record import RunRecord

    done = []

    class Pool:
        def close(self) -> None:
            done.append("close")

    def stage(run: Any, name: str, *_: Any) -> Any:
        done.append(name)
        return (None, None)

    monkeypatch.setattr(photometry._Run, "_do", stage)
    monkeypatch.setattr(photometry._Run, "_epsf", lambda run, *_: done.append("build_epsf"))
    monkeypatch.setattr(photometry._Run, "_fits", lambda run, *_: done.append("run_patches"))
    settings = make_settings(tmp_path)
    record = RunRecord(settings, "run")
    given = Given("c.yaml", None, None, {}, (), (), False)
    photometry._Run(settings, record, given, Pool()).stages_in_order()  # type: ignore[arg-type]
    assert done[done.index("run_patches") :][:3] == ["run_patches", "close", "merge"]


def test_a_run_takes_over_the_workers_that_were_started_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are those that the run works with; a run with other settings has its own, and none is left."""
    monkeypatch.syspath_prepend(str(HERE))
    settings = make_settings(tmp_path, max_workers=2)
    other = make_settings(tmp_path, max_workers=2, task_timeout_seconds=77)
    with open_folder(tmp_path / "out"):
        with pool.started_early(settings):
            with pool.pool_for(settings) as made:
                early = made.pids
                assert len(early) == min(2, os.cpu_count() or 1)
                assert made.call(pool_stages.count)[0] in early
                assert set(made.pids) == set(early)
            assert wait_for(lambda: all(gone(pid) for pid in early), 5)
        with pool.started_early(settings):
            waiting = [int(child) for child in _children() if "flows.pool_worker" in _command(child)]
            assert waiting
            with pool.pool_for(other) as made:
                assert made.pids == []
                assert wait_for(lambda: all(gone(pid) for pid in waiting), 5)


def _children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split() + [
        child
        for task in Path("/proc/self/task").iterdir()
        if task.name != str(os.getpid())
        for child in (task / "children").read_text().split()
    ]


def _command(pid: str) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")


def test_what_epsfs_need_is_loaded_where_it_is_asked_for(start: Callable[..., WorkerPool]) -> None:
    made = start()
    made.start(1, for_epsf=1)
    assert made.call(pool_stages.is_loaded, "photutils.psf")
    bare = start()
    bare.start(1)
    assert not bare.call(pool_stages.is_loaded, "photutils.psf")


def test_worker_is_warm_has_the_settings_and_no_prefect(
    start: Callable[..., WorkerPool], tmp_path: Path
) -> None:
    made = start()
    first, second = made.call(pool_stages.count), made.call(pool_stages.count)
    assert first[0] == second[0]
    assert (first[1], second[1]) == (1, 2)
    threads, prefect, _ = made.call(pool_stages.environment)
    assert (threads, prefect) == ("1", False)
    assert made.call(pool_stages.settings_text) == pool_stages.settings_text(made._settings)
    assert len(made.pids) == 1
    assert set(read_usage(tmp_path / "out" / ".progress"))  # CPU and memory are reported


@pytest.mark.parametrize(
    ("kind", "error", "text", "passing"),
    [
        ("input", InputError, "a bad header", False),
        ("mount", InputError, "image 3 cannot be read", True),
        ("disk", OSError, "[Errno 28] No space left on device: '/somewhere'", False),
        ("reset", ConnectionResetError, "by peer", True),
        ("store", ConnectionError, "EndpointConnectionError: could not reach it", True),
        ("foreign", StageError, "trouble: ForeignError: this and that", False),
        ("exit", StageError, "trouble called sys.exit(3)", False),
    ],
)
def test_errors_keep_their_class_where_it_matters(
    kind: str, error: type[Exception], text: str, passing: bool
) -> None:
    try:
        pool_stages.fail(kind)
    except (Exception, SystemExit) as raised:
        back = wire.error_of(json.loads(wire.line(wire.message_of(raised, "trouble"))))
    assert type(back) is error
    assert str(back) == text
    assert is_passing(back) is passing
    assert "Traceback" in str(back.__cause__)


def test_error_and_exit_leave_the_worker_as_it_is(start: Callable[..., WorkerPool]) -> None:
    made = start()
    pid, _ = made.call(pool_stages.count)
    with pytest.raises(InputError, match="a bad header"):
        made.call(pool_stages.trouble, "input")
    with pytest.raises(StageError, match=r"called sys\.exit"):
        made.call(pool_stages.trouble, "exit")
    assert made.call(pool_stages.count)[0] in (pid, *made.pids)


def test_only_plain_values_pass() -> None:
    with pytest.raises(TypeError, match="only references and plain values"):
        wire.line({"value": object()})


def test_what_a_worker_logs_is_logged_by_the_thread_that_waits(
    start: Callable[..., WorkerPool], caplog: pytest.LogCaptureFixture
) -> None:
    made = start()
    heard: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(f"{threading.current_thread().name} {record.getMessage().splitlines()[0]}")

    handler = Handler()
    logger = logging.getLogger("tract7dt")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="mine") as executor:
            executor.submit(made.call, pool_stages.says, "100 % this").result()
    finally:
        logger.removeHandler(handler)
    assert heard == ["mine_0 said 100 % this", "mine_0 with a traceback"]


# --- workers that die ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "how"), [("kill", "SIGKILL"), ("os._exit", "exit status 7"), ("segfault", "SIGSEGV")]
)
def test_work_that_takes_two_workers_with_it_is_given_up(
    start: Callable[..., WorkerPool], tmp_path: Path, kind: str, how: str
) -> None:
    made = start()
    with pytest.raises(StageError, match=f"its worker was killed twice: {how}") as caught:
        made.call(pool_stages.trouble, kind)
    assert not is_passing(caught.value)  # the pool has tried again; the orchestration need not
    assert (tmp_path / "out" / "tries").read_text() == "xx"
    assert not list((tmp_path / "out").rglob(".*.tmp*"))
    assert made.call(pool_stages.count)[1] == 1  # the pool works on


def test_work_is_done_again_if_its_worker_is_killed_once(
    start: Callable[..., WorkerPool], caplog: pytest.LogCaptureFixture
) -> None:
    assert start().call(pool_stages.trouble, "kill once") is None
    assert "trouble: its worker was killed (SIGKILL, as when memory runs out); once more" in caplog.text


def test_killed_workers_cost_their_patches_only(start: Callable[..., WorkerPool], tmp_path: Path) -> None:
    refs = payloads(tmp_path, "a", "kill", "b", "os._exit", "c")
    made = start()
    fits = made.fit(refs, pool_stages.fit)
    assert [meta["status"] for meta in metas(fits)] == ["a", "failed", "b", "failed", "c"]
    assert metas(fits)[1]["reason"] == "its worker was killed twice: SIGKILL, as when memory runs out"
    assert metas(fits)[3]["reason"] == "its worker was killed twice: exit status 7"
    # Nothing is fitted twice but what killed its worker; that comes last, alone.
    assert fitted(tmp_path) == ["p0", "p1", "p2", "p3", "p4", "p1", "p3"]
    assert metas(fits)[1]["payload_sha256"] == refs[1].sha256
    work = WorkDir.of(made._settings)
    assert "failed" in work.patch_log("p1").read_text()
    progress = read_progress(tmp_path / "out" / ".progress")
    assert sum(report.done for report in progress) == 5
    assert sum(report.failed for report in progress) == 2
    assert not [report for report in progress if report.state == "running"]


def test_patch_that_is_unlucky_once_is_fitted(start: Callable[..., WorkerPool], tmp_path: Path) -> None:
    fits = start().fit(payloads(tmp_path, "kill once", "a"), pool_stages.fit)
    assert [meta["status"] for meta in metas(fits)] == ["kill once", "a"]


def test_patch_that_hangs_is_recorded_and_not_tried_again(
    start: Callable[..., WorkerPool], tmp_path: Path
) -> None:
    made = start(patch_timeout_seconds=1.0)
    begun = time.monotonic()
    fits = made.fit(payloads(tmp_path, "a", "hang in C", "b"), pool_stages.fit)
    assert time.monotonic() - begun < 10
    assert [meta["status"] for meta in metas(fits)] == ["a", "failed", "b"]
    assert metas(fits)[1]["reason"] == "not fitted in 1 s (runtime.patch_timeout_seconds)"
    assert fitted(tmp_path) == ["p0", "p1", "p2"]


def test_task_limit(start: Callable[..., WorkerPool]) -> None:
    with pytest.raises(StageError, match=r"not done in 1 s \(runtime.task_timeout_seconds\)"):
        start().call(pool_stages.trouble, "hang", timeout_s=1.0)


def test_memory_limit_makes_a_memory_error(start: Callable[..., WorkerPool], tmp_path: Path) -> None:
    made = start(worker_memory_mb=600)
    with pytest.raises(MemoryError):
        made.call(pool_stages.trouble, "memory")
    fits = made.fit(payloads(tmp_path, "memory", "b"), pool_stages.fit)
    assert [meta["status"] for meta in metas(fits)] == ["MemoryError", "b"]


def test_worker_that_is_killed_while_it_starts_is_replaced(start: Callable[..., WorkerPool]) -> None:
    made = start()
    made.start(1)
    with ThreadPoolExecutor(1) as executor:
        [first] = made.pids
        waiting = executor.submit(made.call, pool_stages.count)
        assert wait_for(lambda: not made._free, 5)  # it waits for the one that starts
        os.kill(first, signal.SIGKILL)
        pid, times = waiting.result(timeout=60)
    assert (pid != first, times) == (True, 1)


def test_worker_that_is_killed_while_it_is_idle_is_replaced(
    start: Callable[..., WorkerPool], caplog: pytest.LogCaptureFixture
) -> None:
    made = start()
    first, _ = made.call(pool_stages.count)
    os.kill(first, signal.SIGKILL)
    # not gone(first): a process whose first thread has ended is a zombie, though it cannot be waited for yet
    assert wait_for(lambda: made.pids == [], 30)
    second, times = made.call(pool_stages.count)
    assert (second != first, times) == (True, 1)
    assert made.pids == [second]
    assert "once more" not in caplog.text  # it took no work with it


def test_memory_limit_that_no_worker_can_live_with(start: Callable[..., WorkerPool]) -> None:
    with pytest.raises(StageError, match=r"a worker cannot start.*runtime\.worker_memory_mb is 3"):
        start(worker_memory_mb=3).call(pool_stages.count)


# --- the end ---------------------------------------------------------------------------------------------


def test_close_ends_workers_and_those_who_wait(start: Callable[..., WorkerPool], tmp_path: Path) -> None:
    made = start()
    with ThreadPoolExecutor(3) as executor:
        waiting = [executor.submit(made.call, pool_stages.trouble, "hang in C") for _ in range(2)]
        fitting = executor.submit(made.fit, payloads(tmp_path, "hang"), pool_stages.fit)
        tries = tmp_path / "out" / "tries"
        assert wait_for(lambda: tries.is_file() and len(tries.read_text()) == 3, 30)
        pids = made.pids
        begun = time.monotonic()
        made.close()
        assert time.monotonic() - begun < 30  # at once, and not after the work
        for future in [*waiting, fitting]:
            with pytest.raises(StageError, match="the run has given up"):
                future.result(timeout=2)
    assert len(pids) == 3
    assert all(gone(pid) for pid in pids)
    with pytest.raises(StageError, match="the run has given up"):
        made.call(pool_stages.count)


ORPHANS = """
import sys, threading, time
from pathlib import Path
sys.path[:0] = [{here!r}, {root!r}]
import pool_stages, test_flows_pool
from flows.pool import WorkerPool
pool = WorkerPool(test_flows_pool.make_settings(Path({folder!r})), kernels=False)
pool.start(3)
for _ in range(2):
    threading.Thread(target=pool.call, args=(pool_stages.trouble, "hang in C"), daemon=True).start()
while len(pool.pids) < 3 or len(Path({folder!r}, "out", "tries").read_text()) < 2:
    time.sleep(0.05)
print(*pool.pids, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_its_run(tmp_path: Path, number: int) -> None:
    """Two work, in code that lets nobody else run; one waits for work."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tries").touch()
    script = ORPHANS.format(here=str(HERE), root=str(HERE.parent.parent), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        pids = [int(text) for text in process.stdout.readline().split()]
        process.send_signal(number)
        assert len(pids) == 3
        assert wait_for(lambda: all(gone(pid) for pid in pids), 3)
    finally:
        process.kill()
        process.communicate()


def test_there_is_no_pool_for_other_runners(tmp_path: Path) -> None:
    with pool.pool_for(make_settings(tmp_path, task_runner="thread")) as made:
        assert made is None
    with pool.pool_for(make_settings(tmp_path)) as made:
        assert pool.current() is made
        assert made is not None
        assert made.pids == []  # nothing is started that nobody needs
    assert pool.current() is None
