"""The sdist and the wheel that a user would get, made in a clean environment from what git tracks."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run(build_env, root) -> Run:
    """Run a command to its end without a terminal; its words are shown when it fails."""
    house = root / "build" / "wheelhouse"  # fetched by the set-up, so that isolation needs no network
    if house.is_dir():
        build_env = {**build_env, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(house)}

    def call(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=build_env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done

    return call


@pytest.fixture(scope="module")
def clone(root, run, tmp_path_factory) -> Path:
    """A copy of what git tracks or would add: what a fresh clone holds, and no build output."""
    to = tmp_path_factory.mktemp("clone")
    listed = run(
        "git",
        "-c",
        "safe.directory=*",
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        cwd=root,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, to / name)
    return to


@pytest.fixture(scope="module")
def sdist(clone, run, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    hook = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", hook, str(out), cwd=clone)
    return next(out.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(sdist, run, tmp_path_factory) -> Path:
    """The wheel that pip makes of the sdist, with build isolation."""
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(out), str(sdist), cwd=out)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheel, run, tmp_path_factory) -> Path:
    """The wheel, installed into a folder of its own."""
    out = tmp_path_factory.mktemp("site")
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(out), str(wheel), cwd=out)
    return out


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_sdist_holds_every_source_of_the_core(sdist, root):
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    needed = {
        p.relative_to(root).as_posix()
        for p in (root / "csrc").rglob("*")
        if p.suffix in {".c", ".h", ".cpp", ".def"}
    }
    assert needed <= held
    assert {"LICENSE", "README.md", "CHANGELOG.md", "setup.py", "sim/__init__.py"} <= held


def test_wheel_is_one_for_every_python(wheel):
    assert "-cp311-abi3-" in wheel.name


def test_wheel_holds_every_file_of_the_package_and_the_testbed(wheel, clone):
    held = names(wheel)
    for folder, prefix in (("edgellm", ""), ("sim", "edgellm/")):
        for source in (clone / folder).rglob("*"):
            if source.is_file() and "__pycache__" not in source.parts:
                assert prefix + source.relative_to(clone).as_posix() in held
    assert {"edgellm/_core.abi3.so", "edgellm/py.typed"} <= held


def test_wheel_holds_the_simgrid_extension_where_simgrid_is(wheel):
    here = importlib.util.find_spec("edgellm._sim") is not None
    assert ("edgellm/_sim.abi3.so" in names(wheel)) == here


def test_wheel_holds_nothing_else(wheel):
    tops = {name.split("/")[0] for name in names(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"edgellm"}
    assert [name for name in names(wheel) if name.endswith((".c", ".h", ".o", ".a"))] == []


def test_extension_is_small(wheel):
    with zipfile.ZipFile(wheel) as archive:
        assert archive.getinfo("edgellm/_core.abi3.so").file_size < 1_000_000


def test_installed_wheel_imports_without_the_repository(site, run, tmp_path):
    code = f"import sys; sys.path.insert(0, {str(site)!r}); import edgellm, edgellm._core, edgellm.sim; "
    where = run(
        sys.executable, "-c", code + "print(edgellm.__file__, edgellm.sim.__file__)", cwd=tmp_path
    ).stdout
    assert where.count(str(site)) == 2


def test_wheel_carries_its_metadata(wheel, root):
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"edgellm-{project['version']}.dist-info/METADATA").decode()
    assert "License-Expression: Apache-2.0" in text
    needs = [
        line for line in text.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line
    ]
    assert needs == ["Requires-Dist: numpy>=1.26"]


def test_changed_core_source_gives_a_fresh_extension(clone, run, tmp_path):
    """setuptools does not see by itself that an archive under an extension changed."""
    tree = tmp_path / "tree"
    shutil.copytree(clone, tree)
    build = [sys.executable, "setup.py", "-q", "build", "-b", "out", "--build-lib", "out/lib"]
    run(*build, cwd=tree)
    extension = tree / "out" / "lib" / "edgellm" / "_core.abi3.so"
    first = extension.read_bytes()
    source = tree / "csrc" / "core" / "error.c"
    text = source.read_text(encoding="utf-8").replace('"context full"', '"another text"')
    source.write_text(text, encoding="utf-8")
    later = extension.stat().st_mtime + 2  # file systems with whole seconds
    os.utime(source, (later, later))
    run(*build, cwd=tree)
    assert b"another text" not in first
    assert b"another text" in extension.read_bytes()
