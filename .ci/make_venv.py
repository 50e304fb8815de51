"""Make the virtual environment of the Makefile: ``python3 make_venv.py FOLDER``.

Debian ships Python without ``ensurepip`` unless the package python3-venv is there. As root it is installed;
otherwise the message says which one command is missing.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import venv


def main(folder: str) -> int:
    """Make the environment in ``folder``; the exit code."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        print(
            f"tract7dt needs Python 3.11 to 3.13, this is {sys.version.split()[0]}: make PYTHON=python3.11 ...",
            file=sys.stderr,
        )
        return 1
    if importlib.util.find_spec("ensurepip") is None:
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            print(
                f"Python's venv module is not complete here; install it with: sudo apt-get install {package}",
                file=sys.stderr,
            )
            return 1
        print(f"installing {package}, which Debian's Python needs to make a virtual environment")
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(["apt-get", "install", "-y", "-qq", package], check=True)
        # ensurepip is there now, but this process has looked for it already
        return subprocess.run([sys.executable, __file__, folder]).returncode
    venv.EnvBuilder(with_pip=True, symlinks=True, clear=True).create(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
