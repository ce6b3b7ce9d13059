#!/usr/bin/env python3
"""Inspect the wheels of build_wheels.py, and run those that this machine can run (`make check-wheels`).

    python scripts/check_wheels.py [FOLDER] [--no-run]

Inspected in every wheel, with lief: the tag, what the library is linked to, the oldest system that it runs on, its
processor, that the metadata is complete. Run: the wheel of this machine in an empty virtual environment, without a
compiler, with every Python 3.11 to 3.14 that is there: one conversion, whose sha256 must be the same. The arm64 library
under qemu-aarch64 with the C driver over the golden bytes; the musl libraries with musl's loader, where it is there.
What cannot be run here is said.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from build_wheels import OUTPUT, PLATFORMS, ROOT, Platform

MACHINES = {"x86_64": ("X86_64",), "aarch64": ("AARCH64", "ARM64")}
NEEDED = ("py.typed", "_lib/binding.py", "data/calibration.txt", "cli/app.py")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
ROUNDS = "3"  # of random input, after the golden bytes
FIELDS = ("License-Expression: MIT", "Author", "Requires-Python", "Description-Content-Type: text/markdown")


def library_of(wheel: Path, folder: Path) -> Path:
    """The library of a wheel, unpacked into ``folder``."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if re.search(r"_lib/libquantcli\.(so|dylib)$", n))
        return Path(archive.extract(name, folder))


def elf_facts(binary: object) -> tuple[list[str], tuple[int, int], str]:
    """Names of the libraries that an ELF file needs, the newest glibc version among its symbols, its processor."""
    libraries = list(binary.libraries)  # type: ignore[attr-defined]
    versions = [
        tuple(int(part) for part in auxiliary.name.removeprefix("GLIBC_").split(".")[:2])
        for requirement in binary.symbols_version_requirement  # type: ignore[attr-defined]
        for auxiliary in requirement.get_auxiliary_symbols()
        if auxiliary.name.startswith("GLIBC_") and auxiliary.name[6:7].isdigit()
    ]
    return libraries, max(versions, default=(0, 0)), str(binary.header.machine_type).split(".")[-1]  # type: ignore[attr-defined]


def macho_facts(binary: object) -> tuple[list[str], tuple[int, int], str]:
    """The same of a Mach-O file, with the oldest macOS that it runs on."""
    own = [command.name for command in binary.libraries if "libquantcli" not in command.name]  # type: ignore[attr-defined]
    stated = binary.build_version.minos if binary.has_build_version else binary.version_min.version  # type: ignore[attr-defined]
    return own, (int(stated[0]), int(stated[1])), str(binary.header.cpu_type).split(".")[-1]  # type: ignore[attr-defined]


def problems_of_library(library: Path, row: Platform) -> tuple[list[str], str]:
    """What is wrong with a library, and a line of its facts."""
    import lief

    lief.logging.disable()  # it remarks on fields that a stripped file leaves empty
    binary = lief.parse(str(library))
    apple = library.suffix == ".dylib"
    libraries, newest, machine = macho_facts(binary) if apple else elf_facts(binary)
    found = [f"is linked to {name}" for name in libraries if name not in row.libraries]
    if row.newest is None and newest != (0, 0):
        found.append(f"asks for glibc {newest}")
    if row.newest is not None and newest > row.newest:
        found.append(f"asks for version {newest}, the tag promises {row.newest}")
    if machine not in MACHINES["x86_64" if "x86_64" in row.target else "aarch64"]:
        found.append(f"is for {machine}")
    oldest = ".".join(map(str, newest)) if newest != (0, 0) else "-"
    kind = "macOS" if apple else "glibc" if row.newest else "musl"
    return found, f"{machine}, {kind} {oldest}, needs {' '.join(libraries)}"


def problems_of_contents(wheel: Path) -> list[str]:
    """What a wheel lacks, or holds that it should not."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (n for n in names if n.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
    found = [f"lacks {name}" for name in NEEDED if not any(n == f"quantcli/{name}" for n in names)]
    found += [f"METADATA lacks {field}" for field in FIELDS if field not in text]
    known = re.compile(r"quantcli/|[^/]+\.dist-info/|[^/]+\.data/data/share/man/man1/quantcli\.1$")
    foreign = [n for n in names if not known.match(n)]
    found += [f"holds {n}" for n in foreign[:3]]
    libraries = [n for n in names if n.endswith((".so", ".dylib"))]
    return found + ([f"holds {len(libraries)} libraries"] if len(libraries) != 1 else [])


def pythons() -> Iterator[str]:
    """Pythons that work here, one a version."""
    for version in PYTHONS:
        places = [
            shutil.which(f"python{version}"),
            *map(str, Path.home().glob(f".pyenv/versions/{version}*/bin/python")),
        ]
        for place in places:
            command = [place, "-c", "import venv, ensurepip, sys; print('%d.%d' % sys.version_info[:2])"]
            if place and subprocess.run(command, capture_output=True, text=True).stdout.strip() == version:
                yield place
                break


def convert_with(python: str, wheel: Path, folder: Path) -> str:
    """The sha256 of a conversion by the wheel in a new environment whose PATH has no compiler; or what went wrong."""
    environment = folder / "venv"
    subprocess.run([python, "-m", "venv", str(environment)], check=True)
    bare = {"PATH": str(environment / "bin"), "HOME": str(folder), "LANG": "C.UTF-8"}
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "OPENBLAS_"))}
    install = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*install, str(wheel)], env={**bare, **kept, "HOME": str(Path.home())}, text=True, capture_output=True
    )
    if done.returncode:
        return f"pip: {done.stderr[-400:]}"
    model = folder / "tiny"
    shutil.copytree(ROOT / "examples" / "tiny", model)
    command = [
        str(environment / "bin" / "quantcli"),
        "convert",
        str(model),
        "-t",
        "Q4_K_M",
        "-o",
        str(folder / "a.gguf"),
    ]
    done = subprocess.run([*command, "--quiet"], env={**bare, **kept}, text=True, capture_output=True, cwd=folder)
    return hashlib.sha256((folder / "a.gguf").read_bytes()).hexdigest() if done.returncode == 0 else done.stderr[-400:]


def run_here(wheel: Path) -> list[str]:
    """The wheel of this machine with every Python. Returns what is wrong."""
    found = {}
    for python in pythons():
        with tempfile.TemporaryDirectory() as folder:
            found[python] = convert_with(python, wheel, Path(folder))
        print(f"  {python}: {found[python]}", flush=True)
    if not found:
        return ["no Python 3.11 or newer that can make an environment was found"]
    wrong = [text for text in found.values() if not re.fullmatch(r"[0-9a-f]{64}", text)]
    return wrong + ([] if len(set(found.values())) == 1 else ["the bytes differ between Pythons"])


def run_driver(row: Platform, library: Path, folder: Path) -> str | None:
    """The C driver, linked to the library of the wheel, over the golden bytes. None: right; else why not."""
    arm64, musl = "aarch64" in row.target, "musl" in row.target
    runner: list[str] = []
    machine = "aarch64" if arm64 else "x86_64"
    if arm64 and platform.machine() != "aarch64":
        qemu = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
        if qemu is None:
            return "not run: qemu-aarch64 is not installed (Debian: qemu-user)"
        runner = [qemu, "-L", "/usr/aarch64-linux-gnu"]
    loader = Path(f"/lib/ld-musl-{machine}.so.1")
    if musl and not loader.exists():
        return f"not run: {loader} is not there (Debian: musl{':arm64' if arm64 else ''})"
    golden = folder / "golden.flat"
    make = [sys.executable, str(ROOT / "scripts" / "make_flat_golden.py"), str(golden)]
    subprocess.run(make, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    driver = folder / "driver"
    build = [sys.executable, "-m", "ziglang", "cc", "-target", row.target, "-O1", "-std=c11", "-DQC_API=", "-w"]
    build += ["-dynamic"] if musl else []
    build += [str(ROOT / "csrc" / "tests" / "check.c"), str(library), "-lm", "-lpthread", "-o", str(driver)]
    done = subprocess.run(build, capture_output=True, text=True)
    if done.returncode:
        return f"the driver could not be built: {done.stderr[-400:]}"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library.parent)}
    if runner:
        environment = {**os.environ, "QEMU_SET_ENV": f"LD_LIBRARY_PATH={library.parent}"}
    start = [*runner, *([str(loader)] if musl and not arm64 else []), str(driver)]
    done = subprocess.run([*start, str(golden), ROUNDS], env=environment, capture_output=True, text=True)
    print("  " + "\n  ".join(done.stdout.splitlines()[-4:]), flush=True)
    here = Path("/proc/cpuinfo")
    if not arm64 and here.exists() and " avx2 " in here.read_text() and " avx2" not in done.stdout:
        return "the library does not see that this processor has AVX2"
    return None if done.returncode == 0 else f"exit {done.returncode}: {done.stderr[-400:]}"


def check(wheel: Path, row: Platform, run: bool) -> list[str]:
    """Everything about one wheel; returns what is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        library = library_of(wheel, Path(folder))
        found, facts = problems_of_library(library, row)
        found += problems_of_contents(wheel)
        print(f"{wheel.name}\n  {facts}", flush=True)
        if not run or "macos" in row.target:
            print("  not run here" if run else "  not run", flush=True)
            return found
        said = run_driver(row, library, Path(folder))
        if said is not None:
            print(f"  {said}", flush=True)
            found += [] if said.startswith("not run") else [said]
    if platform.machine() in row.target and "gnu" in row.target:
        found += run_here(wheel)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=OUTPUT)
    parser.add_argument("--no-run", action="store_true", help="inspect only")
    arguments = parser.parse_args()
    wrong = 0
    for row in PLATFORMS:
        wheels = sorted(arguments.folder.glob(f"*-py3-none-{row.tag}.whl"))
        if not wheels:
            print(f"{row.tag}: no wheel")
            wrong += 1
        for wheel in wheels:
            for problem in check(wheel, row, not arguments.no_run):
                print(f"  WRONG: {problem}")
                wrong += 1
    print("every wheel is as its tag says" if not wrong else f"{wrong} problems")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
