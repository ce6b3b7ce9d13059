"""`quantcli formats`"""

from quantcli.cli.common import AsJson, Debug
from quantcli.cli.frame import frame

NAME = "formats"


def run(as_json: AsJson = False, debug: Debug = False) -> None:
    """List every recipe (file type) and every tensor type: bits per weight, block, purpose, importance matrix."""
    reporter = frame.start(as_json=as_json, debug=debug)
    from quantcli.commands import formats

    frame.finish(formats.run(reporter))
