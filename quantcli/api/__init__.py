"""The Python interface (docs/python.md): what `import quantcli` offers, loaded when it is first used."""

from quantcli.api.blocks import decode_blocks as decode_blocks
from quantcli.api.blocks import encode_blocks as encode_blocks
from quantcli.api.calls import convert as convert
from quantcli.api.calls import detokenize as detokenize
from quantcli.api.calls import inspect as inspect
from quantcli.api.calls import tokenize as tokenize
from quantcli.api.calls import verify as verify
from quantcli.api.measuring import compare as compare
from quantcli.api.measuring import imatrix as imatrix
from quantcli.api.measuring import perplexity as perplexity
from quantcli.api.progress import Progress as Progress
from quantcli.api.progress import QuantcliWarning as QuantcliWarning
from quantcli.api.releasing import card as card
from quantcli.api.releasing import diff as diff
from quantcli.api.releasing import release as release
from quantcli.api.releasing import reproduce as reproduce
from quantcli.errors import QuantcliError as QuantcliError
