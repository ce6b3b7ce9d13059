#!/usr/bin/env python3
"""Compile csrc/ to the shared library quantcli/_lib/libquantcli.{so,dylib}.

    python scripts/build_kernels.py [--force] [--output FOLDER]

One object per source file, each instruction set with its own flags, never -march=native: the library runs on any CPU of
its architecture and chooses at run time. Only what changed is compiled again. CC names the compiler, CFLAGS adds flags.
On macOS ARCHFLAGS (as setuptools uses it, "-arch arm64 -arch x86_64") makes a universal library.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "csrc"

# -ffp-contract=off is what keeps the bytes the same everywhere: no fused multiply-add.
FLAGS = ["-std=c11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"]
# The emulation only has to be right; at -O3 it takes longer to compile than everything else together.
FILE_FLAGS = {"isa_emu16.c": ["-O1", "-Wno-psabi"]}
# Flags of single files on x86-64 (elsewhere these files compile to nothing).
X86_FLAGS = {
    "isa_avx2.c": ["-mavx2", "-mf16c"],
    "isa_avx512.c": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mf16c", "-mprefer-vector-width=512"],
}
EXPORT = '-DQC_API=__attribute__((visibility("default")))'


def library_name() -> str:
    """File name of the shared library on this system."""
    return "libquantcli.dylib" if sys.platform == "darwin" else "libquantcli.so"


def compiler() -> list[str]:
    """The C compiler: CC, else the first of cc, gcc, clang. Exits with a message when there is none."""
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    found = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    if found is None:
        sys.exit("quantcli needs a C compiler (cc, gcc or clang) to build its kernels; install one or set CC")
    return [found]


def architectures() -> list[list[str]]:
    """Flags per architecture slice: one empty entry, or one per -arch of ARCHFLAGS on macOS."""
    words = shlex.split(os.environ.get("ARCHFLAGS", "")) if sys.platform == "darwin" else []
    names = [words[i + 1] for i, word in enumerate(words[:-1]) if word == "-arch"]
    return [["-arch", name] for name in names] or [[]]


def is_x86(slice_flags: list[str]) -> bool:
    if slice_flags:
        return slice_flags[1] == "x86_64"
    return os.uname().machine in ("x86_64", "amd64")


def newest_header() -> float:
    """Time of the last change of anything that objects include; and of the flags in this file."""
    headers = [*SOURCE.glob("*.h"), *SOURCE.glob("kernels/*.inc"), Path(__file__)]
    return max(path.stat().st_mtime for path in headers)


def compile_object(command: list[str], source: Path, target: Path, force: bool, header_time: float) -> str | None:
    """Compile one object if it is out of date; returns the compiler's complaint, if any."""
    if not force and target.exists() and target.stat().st_mtime > max(source.stat().st_mtime, header_time):
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    done = subprocess.run([*command, "-c", str(source), "-o", str(part)], capture_output=True, text=True)
    if done.returncode == 0:
        part.replace(target)
    return done.stderr.strip() or (None if done.returncode == 0 else "the compiler failed without a message")


def build(output: Path, *, force: bool = False, work: Path | None = None) -> Path:
    """Compile and link into ``output``; returns the library. Exits with the compiler's message on failure."""
    base = [*compiler(), *FLAGS, EXPORT, *shlex.split(os.environ.get("CFLAGS", ""))]
    work = work or ROOT / "build" / "kernels"
    header_time = newest_header()
    jobs = []
    for flags in architectures():
        folder = work / (flags[1] if flags else "native")
        for source in sorted(SOURCE.glob("*.c")):
            extra = FILE_FLAGS.get(source.name, []) + (X86_FLAGS.get(source.name, []) if is_x86(flags) else [])
            jobs.append(([*base, *flags, *extra], source, folder / f"{source.stem}.o"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        complaints = list(pool.map(lambda job: compile_object(*job, force, header_time), jobs))
    for (_, source, target), complaint in zip(jobs, complaints):
        if complaint:
            print(f"{source.name}:\n{complaint}", file=sys.stderr)
        if not target.exists():
            sys.exit(f"{source.name} could not be compiled")
    return link(base, jobs, output)


def link(base: list[str], jobs: list, output: Path) -> Path:
    """Link the objects (on macOS one slice per architecture, joined by lipo)."""
    output.mkdir(parents=True, exist_ok=True)
    library = output / library_name()
    slices = []
    for flags in architectures():
        objects = [str(target) for command, _, target in jobs if not flags or flags[1] in command]
        part = library.with_name(f"{library.name}.{flags[1] if flags else 'native'}.part")
        done = subprocess.run([*base, *flags, "-shared", *objects, "-lm", "-o", str(part)], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"linking failed:\n{done.stderr}")
        slices.append(part)
    if len(slices) > 1:
        subprocess.run(["lipo", "-create", *map(str, slices), "-output", str(library) + ".part"], check=True)
        for part in slices:
            part.unlink()
        slices = [Path(str(library) + ".part")]
    slices[0].replace(library)
    return library


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--force", action="store_true", help="compile everything again")
    parser.add_argument("--output", type=Path, default=ROOT / "quantcli" / "_lib")
    arguments = parser.parse_args()
    build(arguments.output, force=arguments.force)


if __name__ == "__main__":
    main()
