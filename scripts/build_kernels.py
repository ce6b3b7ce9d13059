#!/usr/bin/env python3
"""Compile csrc/ to the shared library quantcli/_lib/libquantcli.{so,dylib}, beside it cffi's reading of its headers.

    python scripts/build_kernels.py [--force] [--output FOLDER] [--program SOURCE]

One object per source file, each instruction set with its own flags, never -march=native: the library runs on any CPU of
its architecture and chooses at run time. Only what changed is compiled again. CC names the compiler, also
one for another system ("python -m ziglang cc -target aarch64-macos.11.0"), CFLAGS and LDFLAGS add flags.
On macOS ARCHFLAGS (as setuptools uses it, "-arch arm64 -arch x86_64") makes a universal library.
--program compiles one more file and links a program instead (csrc/tests; any compiler, also a cross compiler).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "csrc"

# -ffp-contract=off is what keeps the bytes the same everywhere: no fused multiply-add.
FLAGS = [
    "-std=c11",
    "-O3",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fPIC",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Wno-psabi",
    "-Wno-pass-failed",
]
# The emulation only has to be right; at -O3 it takes longer to compile than everything else together. The reference is
# for processors without vectors and for tests: -O3 takes 34 s where -O2 takes 15. The references of the runner's driver
# gain nothing from it either, and gcc 12 for arm64 fails on them with an internal error.
FILE_FLAGS = {
    "isa_emu16.c": ["-O1"],
    "compensate_emu16.c": ["-O1"],
    "check_runner.c": ["-O1"],
    "isa_scalar.c": ["-O2"],
    "packed_scalar.c": ["-O2"],
}
# Compiled first: these take a second to half a minute each, the other files a tenth. The long ones at the end would
# leave all processors but one idle.
SLOW = ("isa_", "compensate_", "packed_", "backend_")
# Flags of single files on x86-64 (elsewhere these files compile to nothing).
AVX2 = ["-mavx2", "-mf16c"]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", *AVX2, "-mprefer-vector-width=512"]
X86_FLAGS = {
    "isa_avx2.c": [*AVX2, "-mfma"],
    "isa_avx512.c": [*AVX512, "-mfma"],
    "backend_avx2.c": [*AVX2, "-mfma"],
    "backend_avx512.c": [*AVX512, "-mavx512vnni", "-mfma", "-mbmi2"],
    "one_token_wide.c": [*AVX512, "-mavx512vnni", "-mavx512vbmi", "-mfma", "-mbmi2"],
    "amx.c": [*AVX512, "-mavx512vnni", "-mfma", "-mbmi2"],
    "amx_emulated.c": [*AVX512, "-mavx512vnni", "-mfma", "-mbmi2"],
    "packed_avx2.c": AVX2,
    "compensate_avx2.c": [*AVX2, "-mfma"],
    "compensate_avx512.c": [*AVX512, "-mfma"],
    "bf16_avx512.c": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512bf16", "-mavx2", "-mfma"],
}
# Given besides where the compiler knows them (gcc 11, clang 11 and later); the file does without.
MORE_FLAGS = {"amx.c": ["-mamx-tile", "-mamx-int8", "-mamx-bf16"]}
ARM64_FLAGS = {"backend_dotprod.c": ["-march=armv8.2-a+dotprod"]}
ZIG_ARM64_FLAGS = {"backend_dotprod.c": ["-mcpu=generic+v8_2a+dotprod"]}  # it has its own names of such things
HEADERS = ("quantcli.h", "runner.h", "checkpoints.h")
EXPORT = '-DQC_API=__attribute__((visibility("default")))'


def library_name() -> str:
    """File name of the shared library on the system that the compiler makes code for."""
    named = target(compiler())
    apple = sys.platform == "darwin" if not named else any(word in named for word in ("macos", "darwin", "apple"))
    return "libquantcli.dylib" if apple else "libquantcli.so"


def compiler() -> list[str]:
    """The C compiler: CC, else the first of cc, gcc, clang. Exits with a message when there is none."""
    given = shlex.split(os.environ.get("CC", ""))
    found = next(
        (words for words in ([given] if given else [["cc"], ["gcc"], ["clang"]]) if shutil.which(words[0])), None
    )
    if found is None:
        sys.exit(
            (f"the C compiler named by CC was not found: {given[0]}; " if given else "no C compiler was found; ")
            + "quantcli builds its kernels with one (cc, gcc or clang). Install one, on Debian "
            "`apt-get install gcc libc6-dev`, on macOS `xcode-select --install`, or set CC"
        )
    return found


def architectures() -> list[list[str]]:
    """Flags per architecture slice: one empty entry, or one per -arch of ARCHFLAGS on macOS."""
    words = shlex.split(os.environ.get("ARCHFLAGS", "")) if sys.platform == "darwin" else []
    names = [words[i + 1] for i, word in enumerate(words[:-1]) if word == "-arch"]
    return [["-arch", name] for name in names] or [[]]


def target(command: list[str]) -> str:
    """The system that the compiler makes code for, as it is named on its command line; "" where it is not."""
    return next((command[place + 1] for place, word in enumerate(command[:-1]) if word == "-target"), "")


def knows(command: list[str], flags: list[str]) -> bool:
    """Whether the compiler takes these flags (for the machine that it makes code for)."""
    empty = subprocess.run([*command, *flags, "-E", "-x", "c", "-"], input="", capture_output=True, text=True)
    return empty.returncode == 0


def machine_flags(command: list[str], slice_flags: list[str]) -> dict[str, list[str]]:
    """Flags of single files for the machine that the compiler makes code for (not this one)."""
    asked = (
        slice_flags[1]
        if slice_flags
        else target(command) or subprocess.run([*command, "-dumpmachine"], capture_output=True, text=True).stdout
    )
    arm64 = ZIG_ARM64_FLAGS if any("zig" in Path(word).name for word in command) else ARM64_FLAGS
    tables = {("x86_64", "amd64"): X86_FLAGS, ("aarch64", "arm64"): arm64}
    table = next((table for names, table in tables.items() if asked.startswith(names)), {})
    more = {name: flags for name, flags in MORE_FLAGS.items() if name in table and knows(command, flags)}
    return {name: [*flags, *more.get(name, [])] for name, flags in table.items()}


def library_sources() -> list[Path]:
    """Every file of the library, the slowest to compile first; names differ across folders, for objects share one."""
    found = [*SOURCE.glob("*.c"), *SOURCE.glob("encode/*.c"), *SOURCE.glob("runner/*.c")]
    return sorted(found, key=lambda path: (not path.name.startswith(SLOW), not path.name.startswith("isa_"), path.name))


def included(source: Path) -> set[Path]:
    """The file and everything of csrc/ that it includes, directly or not."""
    found, waiting = set(), [source.resolve()]
    while waiting:
        path = waiting.pop()
        if path not in found and path.is_file():
            found.add(path)
            names = re.findall(r'^#include "([^"]+)"', path.read_text(encoding="utf-8"), re.MULTILINE)
            waiting += [(path.parent / name).resolve() for name in names]
    return found


def newest_header(source: Path) -> float:
    """Time of the last change of anything that this source includes."""
    return max(path.stat().st_mtime for path in included(source))


def common_flags() -> list[str]:
    """Flags of every file; CFLAGS last, so that they win."""
    return [*FLAGS, EXPORT, *shlex.split(os.environ.get("CFLAGS", ""))]


def compile_object(command: list[str], source: Path, target: Path, force: bool, header_time: float) -> tuple[bool, str]:
    """Compile one object if it is out of date; returns success and what the compiler said."""
    flags, stated = target.with_suffix(".flags"), " ".join(command)
    same = not flags.exists() or flags.read_text(encoding="utf-8") == stated
    if not force and same and target.exists() and target.stat().st_mtime > max(source.stat().st_mtime, header_time):
        return True, ""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(f".{os.getpid()}.part")
    done = subprocess.run([*command, "-c", str(source), "-o", str(part)], capture_output=True, text=True)
    if done.returncode == 0:
        part.replace(target)
        flags.write_text(stated, encoding="utf-8")
    return done.returncode == 0, done.stderr.strip()


def compile_all(base: list[str], slice_flags: list[str], sources: list[Path], work: Path, force: bool) -> list[str]:
    """Compile for one architecture; returns the objects. Exits with the compiler's message on failure."""
    command = [*base, *slice_flags]
    folder = work / f"{zlib.crc32(' '.join(command).encode()):08x}"  # other flags, other objects
    machine = machine_flags(compiler(), slice_flags)
    jobs = []
    for source in sources:
        extra = FILE_FLAGS.get(source.name, []) + machine.get(source.name, [])
        jobs.append(([*command, *extra], source, folder / f"{source.stem}.o", force, newest_header(source)))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda job: compile_object(*job), jobs))
    for (_, source, *_), (_, said) in zip(jobs, results, strict=True):
        if said:
            print(f"{source.name}:\n{said}", file=sys.stderr)
    if not all(success for success, _ in results):
        sys.exit("the kernels could not be compiled")
    return [str(job[2]) for job in jobs]


def link(command: list[str], output: Path) -> Path:
    """Run the linker into a temporary name beside ``output``."""
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(f"{output.name}.{os.getpid()}.part")
    more = ["-lm", "-lpthread", *shlex.split(os.environ.get("LDFLAGS", ""))]
    done = subprocess.run([*command, *more, "-o", str(part)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"linking failed:\n{done.stderr}")
    return part


def build(output: Path, *, force: bool = False) -> Path:
    """Compile and link the library into the folder ``output``; returns its path. Exits with a message on failure."""
    base = [*compiler(), *common_flags()]
    library, slices = output / library_name(), []
    for number, flags in enumerate(architectures()):
        objects = compile_all(base, flags, library_sources(), ROOT / "build" / "kernels", force)
        slices.append(link([*base, *flags, "-shared", *objects], output / f"{number}-{library.name}"))
    if len(slices) > 1:
        joined = library.with_name(f"{library.name}.{os.getpid()}.part")
        subprocess.run(["lipo", "-create", *map(str, slices), "-output", str(joined)], check=True)
        for part in slices:
            part.unlink()
        slices = [joined]
    slices[0].replace(library)
    write_binding(output / "binding.py")
    return library


def write_binding(path: Path) -> None:
    """The public headers as a Python module made by cffi: parsing them takes longer than loading what comes of it."""
    try:
        from cffi import FFI
    except ImportError:
        sys.exit("the build reads its headers with cffi: `python -m pip install cffi`, or use the Python of .venv")
    ffi = FFI()
    ffi.set_source("binding", None)
    for name in HEADERS:
        ffi.cdef(declarations((SOURCE / name).read_text(encoding="utf-8")))
    part = path.with_name(f"{path.stem}-{os.getpid()}.py")
    with contextlib.redirect_stderr(None), contextlib.redirect_stdout(None):  # it says what it writes
        ffi.emit_python_code(str(part))
    part.replace(path)


def declarations(header: str) -> str:
    """A header as cffi reads it: without what is for the preprocessor."""
    lines = (line for line in header.splitlines() if not line.startswith("#"))
    return "\n".join(lines).replace("QC_API", "")


def build_program(source: Path, output: Path, *, force: bool = False) -> Path:
    """Compile the kernels and ``source`` and link them to the program ``output``."""
    base = [*compiler(), *common_flags()]
    objects = compile_all(base, [], [*library_sources(), source.resolve()], ROOT / "build" / "kernels", force)
    link([*base, *objects], output).replace(output)
    return output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--force", action="store_true", help="compile everything again")
    parser.add_argument("--output", type=Path, default=ROOT / "quantcli" / "_lib", help="folder; with --program a file")
    parser.add_argument("--program", type=Path, metavar="SOURCE", help="a C file with main()")
    arguments = parser.parse_args()
    if arguments.program:
        build_program(arguments.program, arguments.output, force=arguments.force)
    else:
        build(arguments.output, force=arguments.force)


if __name__ == "__main__":
    main()
