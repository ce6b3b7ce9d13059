#!/usr/bin/env python3
"""Build the wheels of all platforms on one Linux machine, with zig as the C compiler (`make wheels`).

    python scripts/build_wheels.py [--only WORD]... [--output build/wheels]

Needs the extra `wheels` (ziglang, setuptools, cffi). One wheel a platform for every Python, py3-none-<platform>; the
oldest system that each runs on is in the table. `scripts/check_wheels.py` inspects and runs them. An sdist comes with
them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "build" / "wheels"


class Platform(NamedTuple):
    """One wheel: its tag, zig's name of the system, and what the library in it may need.

    ``libraries``: names that it may be linked to; ``newest`` the newest version of glibc (or macOS) it may ask for.
    """

    tag: str
    target: str
    libraries: tuple[str, ...]
    newest: tuple[int, int] | None


_GLIBC = ("libc.so.6", "libm.so.6", "libpthread.so.0")
_MUSL = ("libc.so",)  # musl's loader knows it is meant
_APPLE = ("/usr/lib/libSystem.B.dylib",)
PLATFORMS = (
    Platform("manylinux_2_17_x86_64.manylinux2014_x86_64", "x86_64-linux-gnu.2.17", _GLIBC, (2, 17)),
    Platform("manylinux_2_17_aarch64.manylinux2014_aarch64", "aarch64-linux-gnu.2.17", _GLIBC, (2, 17)),
    Platform("musllinux_1_2_x86_64", "x86_64-linux-musl", _MUSL, None),
    Platform("musllinux_1_2_aarch64", "aarch64-linux-musl", _MUSL, None),
    Platform("macosx_11_0_arm64", "aarch64-macos.11.0", _APPLE, (11, 0)),
    Platform("macosx_10_13_x86_64", "x86_64-macos.10.13", _APPLE, (10, 13)),
)


def compiler(platform: Platform) -> str:
    """The command that compiles for a platform."""
    more = " -dynamic" if platform.libraries == _MUSL else ""  # zig would put musl itself into the library
    return f"{sys.executable} -m ziglang cc -target {platform.target}{more}"


def build(platform: Platform, output: Path) -> Path:
    """Build one wheel; returns its path. Exits with what the build said where it fails."""
    part = output / f".{platform.target}"
    shutil.rmtree(part, ignore_errors=True)
    environment = {**os.environ, "CC": compiler(platform), "QUANTCLI_PLATFORM": platform.tag}
    environment["LDFLAGS"] = "-s"  # zig keeps what debuggers read: three quarters of the file
    environment.pop("CFLAGS", None)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*command, "--no-build-isolation", "--wheel-dir", str(part), str(ROOT)],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{platform.tag}: {done.stdout[-3000:]}{done.stderr[-3000:]}")
    (made,) = part.glob("*.whl")
    target = output / made.name
    made.replace(target)
    part.rmdir()
    return target


def build_sdist(output: Path) -> Path:
    """The source archive; returns its path."""
    before = set(output.glob("*.tar.gz"))
    command = [sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"sdist: {done.stderr[-3000:]}")
    made = sorted(output.glob("*.tar.gz"), key=lambda path: (path in before, -path.stat().st_mtime))
    return made[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help="platforms with WORD in their tag")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    chosen = [row for row in PLATFORMS if not arguments.only or any(word in row.tag for word in arguments.only)]
    if not chosen:
        sys.exit(f"no platform has {' or '.join(arguments.only)} in its tag: {', '.join(row.tag for row in PLATFORMS)}")
    for platform in chosen:
        began = time.monotonic()
        print(f"{platform.tag} ...", flush=True)
        made = build(platform, output)
        print(f"  {made.name}  {made.stat().st_size:,} bytes, {time.monotonic() - began:.0f} s", flush=True)
    made = build_sdist(output)
    print(f"  {made.name}  {made.stat().st_size:,} bytes", flush=True)


if __name__ == "__main__":
    main()
