"""Examples that the help of a command ends with: lines that work when pasted, with one's own files in them."""

from __future__ import annotations

from collections.abc import Mapping

LINES: Mapping[str, tuple[str, ...]] = {
    "convert": (
        "quantcli convert DIR -t Q4_K_M",
        "quantcli convert DIR -t Q4_K_M,Q6_K,Q8_0 -o out/          # one read, three files",
        "quantcli convert DIR -t IQ3_M --imatrix auto              # collects importance first",
        "quantcli convert DIR --target-size 4G -o model.gguf       # the best mixture in 4 GB",
        "quantcli convert DIR -t Q4_K_M,Q8_0 --dry-run             # sizes to the byte, nothing written",
        "quantcli convert model-bf16.gguf -t Q5_K_M                # a GGUF file is a source, too",
    ),
    "graft": ("quantcli graft A.gguf B.gguf --tensors '^output' -o C.gguf",),
    "inspect": (
        "quantcli inspect model.gguf",
        "quantcli inspect DIR --tensors",
        "quantcli inspect imatrix.gguf --json",
    ),
    "check": ("quantcli check DIR",),
    "verify": ("quantcli verify out/*.gguf --checksums SHA256SUMS",),
    "imatrix": (
        "quantcli imatrix DIR -o imatrix.gguf                      # from the bundled text",
        "quantcli imatrix model-Q8_0.gguf -f mine.txt --chunks 100",
        "quantcli imatrix --in-file a.gguf --in-file b.gguf -o both.gguf",
    ),
    "calibrate": ("quantcli calibrate DIR -o stats/",),
    "plan": ("quantcli plan DIR --like Q4_K_M -o plan.txt", "quantcli plan DIR --target-bpw 4.5"),
    "analyze": ("quantcli analyze DIR",),
    "perplexity": (
        "quantcli perplexity model.gguf -f wiki.test.raw",
        "quantcli perplexity DIR -f text.txt --chunks 20",
    ),
    "compare": (
        "quantcli compare DIR out/*.gguf -f wiki.test.raw",
        "quantcli compare DIR out/*.gguf -f text.txt --chunks 20 --html report.html",
    ),
    "generate": ('quantcli generate model.gguf -p "Once upon a time" -n 64',),
    "embed": ("quantcli embed model.gguf -f lines.txt --json",),
    "bench": ("quantcli bench", "quantcli bench --parameters 70B --json > bench.json"),
    "diff": ("quantcli diff A.gguf B.gguf", "quantcli diff A.gguf B.gguf --tensor blk.0.attn_q.weight"),
    "reproduce": ("quantcli reproduce model-Q4_K_M.gguf --source DIR --imatrix imatrix.gguf",),
    "card": ("quantcli card out/",),
    "release": (
        "quantcli release release.toml --dry-run                   # files, sizes, disk, time",
        "quantcli release release.toml                             # run it again after an interrupt: it goes on",
        "quantcli release release.toml --only Q4_K_M --yes         # one type, and upload without asking",
    ),
    "schema": ("quantcli schema convert",),
}


def epilog(name: str) -> str | None:
    """The examples of a command as its help shows them; None where it has none."""
    lines = LINES.get(name)
    return None if lines is None else "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
