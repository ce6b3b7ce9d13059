"""`quantcli formats`"""

from __future__ import annotations

from quantcli.cli.common import AsJson, Debug
from quantcli.cli.frame import frame

NAME = "formats"


def run(as_json: AsJson = False, debug: Debug = False) -> None:
    """List every recipe (file type) and every tensor type: bits per weight, block, purpose, importance matrix."""
    reporter = frame.start(as_json=as_json, debug=debug)
    from quantcli.commands import formats

    result = formats.formats_overview()
    reporter.object(result)
    reporter.table(
        ("recipe", "number", "bpw", "imatrix", "for"),
        [
            (r["name"], r["number"], "-" if r["bpw"] is None else f"{r['bpw']:.2f}", r["importance"], r["purpose"])
            for r in result["recipes"]
        ],
        title="Recipes (quantcli convert -t NAME)",
        right=(1, 2),
    )
    reporter.line("")
    reporter.table(
        ("type", "bpw", "block", "bytes", "imatrix", "encode", "for"),
        [
            (
                t["name"],
                f"{t['bpw']:.4g}",
                t["block"],
                t["bytes"],
                t["importance"],
                ", ".join(t["searches"]) or "-",
                t["purpose"],
            )
            for t in result["types"]
        ],
        title="Tensor types (--tensor-type REGEX=NAME)",
        right=(1, 2, 3),
    )
