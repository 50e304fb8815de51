"""A browser, a Prefect server with a worker, and a small field with a deployment."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from chromium import chromium

from tract7dt.sample import SampleOptions, make_sample

ROOT = Path(__file__).resolve().parent.parent.parent

_CONFIG = """\
inputs: {tile_name: UDS, input_catalog: input_catalog.csv, image_list_file: image_list.txt,
         gaiaxp_synphot_csv: gaiaxp_synphot.csv}
outputs: {work_dir: run}
crop: {margin: 6, plot_pre_crop: false}
overlay: {zoom_enabled: false}
plotting: {dpi: 40}
epsf: {epsf_ngrid: 1, ngrid: 2}
patch_run: {no_patch_overview: true, no_cutouts: true, n_opt_iters: 8}
runtime: {max_workers: 2}
night: {quiet_seconds: 0}
"""


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile"), (1400, 1500)) as started:
        yield started


@dataclass(frozen=True)
class Site:
    """A server with a worker, and the deployment of one field."""

    ui: str
    deployment: str
    folder: Path

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.ui}/api{path}", timeout=20) as answer:
            return json.load(answer)

    def post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(
            f"{self.ui}/api{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Everything that an observer's browser meets, on loopback."""
    from flows.server import LocalServer, quiet_environment

    folder = tmp_path_factory.mktemp("site")
    field = folder / "UDS"
    make_sample(field, SampleOptions(width=260, height=260, bands=2, seed=6, stars=22, galaxies=6))
    (field / "config.yaml").write_text(_CONFIG)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment = kept | quiet_environment() | {"PREFECT_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(folder / "home"))
        server = LocalServer(folder / "server.log")
        server.start()
    try:
        server.wait_until_ready()
        environment |= {"PREFECT_API_URL": server.url, "PREFECT_WORKER_QUERY_SECONDS": "2"}
        with _worker(environment, folder):
            found = Site(server.ui_url, "", folder)
            yield Site(server.ui_url, _deploy(found, field / "config.yaml", environment), folder)
    finally:
        server.stop()


def _deploy(site: Site, config: Path, environment: dict[str, str]) -> str:
    """Register a deployment as a site does, from the flow itself; its id."""
    code = (
        "import sys\n"
        "from prefect.deployments.runner import EntrypointType\n"
        "from flows.photometry import photometry\n"
        "made = photometry.to_deployment(name='UDS', work_pool_name='site', parameters={'config': sys.argv[1]},\n"
        "                                entrypoint_type=EntrypointType.MODULE_PATH)\n"
        "print(made.apply())\n"
    )
    with contextlib.suppress(urllib.error.HTTPError):  # the worker was faster
        site.post("/work_pools/", {"name": "site", "type": "process"})
    command = [sys.executable, "-c", code, str(config)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


@contextlib.contextmanager
def _worker(environment: dict[str, str], folder: Path) -> Iterator[None]:
    with (folder / "worker.log").open("wb") as log:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "site", "--type", "process"]
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@pytest.fixture(scope="session")
def shoot(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Take a screenshot; TRACT7DT_SCREENSHOTS names a folder where they are kept to be looked at."""
    folder = Path(os.environ.get("TRACT7DT_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)

    def take(name: str) -> Path:
        path = folder / f"{name}.png"
        assert browser.save_screenshot(str(path))
        return path

    return take
