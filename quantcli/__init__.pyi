from quantcli.api import Progress as Progress
from quantcli.api import QuantcliError as QuantcliError
from quantcli.api import QuantcliWarning as QuantcliWarning
from quantcli.api import card as card
from quantcli.api import compare as compare
from quantcli.api import convert as convert
from quantcli.api import decode_blocks as decode_blocks
from quantcli.api import detokenize as detokenize
from quantcli.api import diff as diff
from quantcli.api import encode_blocks as encode_blocks
from quantcli.api import imatrix as imatrix
from quantcli.api import inspect as inspect
from quantcli.api import perplexity as perplexity
from quantcli.api import release as release
from quantcli.api import reproduce as reproduce
from quantcli.api import tokenize as tokenize
from quantcli.api import verify as verify

__version__: str
