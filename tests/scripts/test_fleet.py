"""examples/fleet: the shell of every example is run as its scheduler would run it, on the bundled checkpoint."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

FLEET = Path(__file__).resolve().parents[2] / "examples" / "fleet"
TINY = FLEET.parent / "tiny"
QUANTCLI = f"{sys.executable} -m quantcli"
WORKERS = 2


def sh(script: str, folder: Path, shell: str = "bash", **environment: str) -> subprocess.CompletedProcess[str]:
    known = {"MODEL": str(TINY), "OUT": "out", "QUANTCLI": QUANTCLI, "SPLIT": "900K", "TYPE": "Q4_0"}
    return subprocess.run(
        [shell, "-c", script], cwd=folder, env={**os.environ, **known, **environment}, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("whole")
    done = sh('$QUANTCLI convert "$MODEL" -t $TYPE --split-max-size $SPLIT -o out/', folder)
    assert not done.returncode, done.stderr
    return sums(folder / "out")


def sums(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.gguf"))}


def finished(folder: Path, whole: dict[str, str]) -> None:
    done = sh("$QUANTCLI assemble out", folder)
    assert not done.returncode, done.stdout + done.stderr
    assert sums(folder / "out") == whole


def test_parallel(tmp_path: Path, whole: dict[str, str]) -> None:
    line = f"sh {FLEET / 'parallel.sh'}"
    for _ in range(2):  # the second time there is nothing to do
        done = sh(line, tmp_path, TYPES="Q4_0", WORKERS=str(WORKERS))
        assert not done.returncode, done.stderr
    finished(tmp_path, whole)
    listed = (tmp_path / "out" / "SHA256SUMS").read_text()
    assert listed == "".join(f"{digest}  {name}\n" for name, digest in whole.items())


def test_parallel_tells_a_worker_that_fails(tmp_path: Path) -> None:
    done = sh(f"sh {FLEET / 'parallel.sh'}", tmp_path, TYPES="Q4_9", WORKERS="1")
    assert done.returncode and "Q4_9" in done.stderr


def test_slurm_array(tmp_path: Path, whole: dict[str, str]) -> None:
    script = (FLEET / "slurm.sbatch").read_text()
    assert "#SBATCH --array=1-16" in script
    for number in (2, 1, 1):  # the last is a task that was queued again
        count = {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_TASK_COUNT": str(WORKERS)}
        done = sh(script, tmp_path, **count)
        assert not done.returncode, done.stderr
    finished(tmp_path, whole)


def test_kubernetes_job(tmp_path: Path, whole: dict[str, str]) -> None:
    job = yaml.safe_load((FLEET / "kubernetes.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    given = {one["name"]: one["value"] for one in container["env"]}
    assert job["spec"]["completionMode"] == "Indexed" and int(given["WORKERS"]) == job["spec"]["completions"]
    (script,) = container["args"]
    for index in range(WORKERS):
        done = sh(script, tmp_path, "sh", JOB_COMPLETION_INDEX=str(index), WORKERS=str(WORKERS))
        assert not done.returncode, done.stderr
    finished(tmp_path, whole)


def test_github_matrix(tmp_path: Path, whole: dict[str, str]) -> None:
    jobs = yaml.safe_load((FLEET / "github.yml").read_text())["jobs"]
    matrix = jobs["part"]["strategy"]["matrix"]["part"]
    step = next(one for one in jobs["part"]["steps"] if one.get("name") == "convert")
    assert matrix == list(range(1, int(step["env"]["WORKERS"]) + 1))
    for number in range(1, WORKERS + 1):
        runner = tmp_path / f"runner-{number}"
        runner.mkdir()
        done = sh(step["run"], runner, "sh", PART=str(number), WORKERS=str(WORKERS))
        assert not done.returncode, done.stderr
        shutil.copytree(runner / "out", tmp_path / "out", dirs_exist_ok=True)  # what the artifacts do
    finished(tmp_path, whole)
    last = next(one for one in jobs["assemble"]["steps"] if one.get("name") == "assemble")
    assert not sh(last["run"], tmp_path, "sh").returncode
    with open(next((tmp_path / "out").glob("*.gguf")), "r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"\x01")
    assert sh("$QUANTCLI assemble out", tmp_path).returncode == 1  # by the sums that came with the parts
