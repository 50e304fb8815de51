"""No secret reaches a file, the terminal or the orchestration's memory; nothing that came in is run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from badinput_field import TinyField, make_field
from badinput_run import run_command

REPOSITORY = Path(__file__).resolve().parents[2]
#: Where a secret may come from, each with a value of its own: the environment, and the configuration.
ENVIRONMENT = {
    "AWS_SECRET_ACCESS_KEY": "pl4nted-aws-key-0123456789",
    "AWS_SESSION_TOKEN": "pl4nted-aws-token-0123456789",
    "PREFECT_API_KEY": "pl4nted-prefect-0123456789",
    "DATABASE_PASSWORD": "pl4nted-database-0123456789",
    "HTTPS_PROXY": "http://me:pl4nted-proxy-0123456789@127.0.0.1:9",
}
PLANTED = b"pl4nted"


def run(tiny: TinyField, home: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    """The command as a process of its own, with secrets in its environment."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PREFECT_")}
    environment = (
        kept | ENVIRONMENT | {"PREFECT_HOME": str(home), "PYTHONPATH": str(REPOSITORY), "NO_PROXY": "*"}
    )
    command = [
        sys.executable,
        "-m",
        "flows.cli",
        "run",
        "--config",
        str(tiny.folder / "config.yaml"),
        *options,
    ]
    return subprocess.run(command, env=environment, capture_output=True, timeout=300)


def files_with_a_secret(*folders: Path) -> list[str]:
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and PLANTED in path.read_bytes():
                found.append(str(path.relative_to(folder)))
    return found


@pytest.mark.parametrize(
    "direct", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["direct", "flow"]
)
def test_planted_secrets_reach_no_output(tmp_path: Path, direct: bool) -> None:
    tiny = make_field(tmp_path / "field")
    gaia = {
        "inputs": {"gaiaxp_synphot_csv": "gaia.csv"},
        "zp": {"enabled": True},
        "report": {"enabled": True},
    }
    tiny.config(gaia)
    home = tmp_path / "prefect"
    ended = run(tiny, home, "--debug", *(["--direct"] if direct else []))
    assert ended.returncode == 0, ended.stderr.decode()[-3000:]
    assert PLANTED not in ended.stdout + ended.stderr
    (tiny.folder / "config.yaml").unlink()
    assert files_with_a_secret(tiny.folder, *([home] if home.exists() else [])) == []
    assert (tiny.work / "output_catalog.csv").exists()


@pytest.mark.parametrize("place", ["catalogue", "image", "gaia", "override", "cluster", "cluster override"])
def test_secret_in_the_configuration_is_refused_and_not_repeated(tmp_path: Path, place: str) -> None:
    tiny = make_field(tmp_path / "field")
    url = "https://me:pl4nted-in-url-0123456789@127.0.0.1:9/file"
    options, inputs = [], {}
    if place == "catalogue":
        inputs["input_catalog"] = f"{url}.csv"
    elif place == "image":
        tiny.image_list.write_text(f"m450.fits\n{url}.fits?X-Amz-Signature=pl4nted-signature\n")
    elif place == "gaia":
        inputs["gaiaxp_synphot_csv"] = f"{url}.csv"
    elif place == "cluster override":
        options = ["--override", "runtime.cluster={address: 'tls://me:pl4nted-0123456789@host:8786'}"]
    elif place == "override":
        options = ["--override", f"inputs.input_catalog={url}.csv"]
    secret = {"security": {"password": "pl4nted-config-0123456789"}, "port": 8786}
    cluster = {"cluster": secret} if place == "cluster" else {}
    tiny.config({"inputs": inputs, "zp": {"enabled": True}, "runtime": cluster})
    ended = run_command(tiny, "--debug", *options)
    assert ended.code in (1, 2)
    assert "pl4nted" not in ended.said
    assert "holds a secret" in ended.terminal or "***" in ended.terminal
    (tiny.folder / "config.yaml").unlink()
    tiny.image_list.unlink()
    assert files_with_a_secret(tiny.folder) == []
    assert not (tiny.work / "output_catalog.csv").exists()


#: What runs or makes objects of bytes; ruff forbids most of it by name (S102, S301, S307, S506, S60x).
FORBIDDEN = re.compile(
    r"\b(pickle|cPickle|dill|cloudpickle|shelve|marshal|joblib)\b\s*[.(]|\bread_pickle\(|\bto_pickle\("
    r"|allow_pickle=True|(?<![\w.])(eval|exec)\(|shell=True|os\.(system|popen)\(|yaml\.(unsafe_|full_)?load(_all)?\("
)


def test_nothing_from_outside_is_unpickled_evaluated_or_run() -> None:
    found = []
    for package in ("tract7dt", "tasks", "flows"):
        for path in (REPOSITORY / package).rglob("*.py"):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if FORBIDDEN.search(line.split("#")[0]):
                    found.append(f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()}")
    assert found == []


def test_the_search_finds_what_it_is_for() -> None:
    for line in ("pickle.loads(data)", "np.load(f, allow_pickle=True)", "eval(text)", "run(x, shell=True)",
                 "yaml.load(text)", "os.system(name)", "pd.read_pickle(path)"):  # fmt: skip
        assert FORBIDDEN.search(line), line
    for line in ("yaml.safe_load(text)", "model.eval()", "np.load(f, allow_pickle=False)"):
        assert not FORBIDDEN.search(line), line


def test_audit_of_the_packages_says_when_nobody_answers_and_costs_no_time() -> None:
    nobody = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "NO_PROXY": ""}
    done = subprocess.run(
        [str(REPOSITORY / ".ci" / "audit"), sys.executable, "/nowhere"],
        env=dict(os.environ) | nobody | {"no_proxy": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "gives no answer" in done.stdout
    assert ".ci/audit" in (REPOSITORY / "Makefile").read_text()
    assert "make audit ||" in (REPOSITORY / ".ci" / "run").read_text()
