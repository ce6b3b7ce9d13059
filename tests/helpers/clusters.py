"""A Dask scheduler and its workers, as processes of this machine."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0  # seconds, on a busy machine
#: what docs/engines.md recommends: dask looks at its own threads a hundred times a second, at its loop fifty times
QUIET = {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False", "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s"}


class Cluster:
    """One scheduler. ``workers`` are processes of one thread."""

    def __init__(self, folder: Path, workers: int, threads: int = 1) -> None:
        self.folder, self.threads, self.processes = folder, threads, []
        self.file = folder / "scheduler.json"
        self._start("dask_scheduler", "--port", "0", "--host", "127.0.0.1")
        self._until(self.file.exists)
        self.workers = [self.add() for _ in range(workers)]

    @property
    def url(self) -> str:
        """For --engine."""
        import json

        return json.loads(self.file.read_text())["address"].replace("tcp://", "dask://")

    def add(self) -> subprocess.Popen:
        """One more worker."""
        return self._start(
            "dask_worker", "--nthreads", "1", "--no-nanny", "--memory-limit", "0", "--death-timeout", "60"
        )

    def _start(self, module: str, *arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-m", f"distributed.cli.{module}", "--scheduler-file", str(self.file)]
        command += [
            "--no-dashboard",
            *(("--local-directory", str(self.folder)) if "worker" in module else ()),
            *arguments,
        ]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        environment |= QUIET
        log = open(self.folder / f"{module}-{len(self.processes)}.log", "wb")  # noqa: SIM115 - the process has it
        process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)
        log.close()
        self.processes.append(process)
        return process

    def _until(self, ready: object) -> None:
        start = time.monotonic()
        while not ready():
            assert time.monotonic() - start < PATIENCE and self.processes[-1].poll() is None, self.logs()
            time.sleep(0.05)

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(self.folder.glob("*.log")))

    def wait_for(self, count: int) -> None:
        """Until so many workers are there."""
        from distributed import Client

        with Client(self.url.replace("dask://", "tcp://"), timeout=PATIENCE, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=PATIENCE)

    def load(self, module: str) -> None:
        """Import a module in every worker, as those of a cluster have it that has worked before."""
        from distributed import Client

        with Client(self.url.replace("dask://", "tcp://"), timeout=PATIENCE, set_as_default=False) as client:
            client.run(importlib.import_module, module)

    def processor(self) -> tuple[float, float]:
        """Seconds of the user and of the system that the workers have taken; zeros where the system is not Linux."""
        if not sys.platform.startswith("linux"):
            return 0.0, 0.0
        texts = [Path(f"/proc/{worker.pid}/stat").read_text(encoding="ascii") for worker in self.workers]
        fields = [text.rpartition(")")[2].split() for text in texts]  # a name may hold spaces
        ticks = os.sysconf("SC_CLK_TCK")
        return sum(int(one[11]) for one in fields) / ticks, sum(int(one[12]) for one in fields) / ticks

    def kill(self, worker: subprocess.Popen) -> None:
        """As the kernel does it, or a power supply."""
        worker.send_signal(signal.SIGKILL)
        worker.wait()

    def close(self) -> None:
        for process in reversed(self.processes):
            if process.poll() is None:
                process.kill()
            process.wait()


@contextmanager
def cluster(workers: int) -> Iterator[Cluster]:
    """A cluster of so many workers, which are there."""
    with tempfile.TemporaryDirectory() as folder:
        made = Cluster(Path(folder), workers)
        try:
            if workers:
                made.wait_for(workers)
            yield made
        finally:
            made.close()
