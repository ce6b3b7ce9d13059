"""Lazy views of stored tensors: everything that a transform can do to rows without reading a whole tensor.

``reader.py`` says what a view is; ``stored.py`` is a tensor in its file, ``order.py`` moves rows, ``shape.py`` sees the
same elements in other rows, ``computed.py`` changes or makes numbers, ``product.py`` adds a product to them.
"""

from quantcli.views.computed import ColumnNormed, Computed, Decoded, Generated, Mapped, Zeros
from quantcli.views.order import Span, Stacked, Strided
from quantcli.views.product import Merged, Replaced
from quantcli.views.reader import Reader, cut_columns
from quantcli.views.shape import Reshaped, Transposed, transpose
from quantcli.views.stored import ByteTensor, Stored

__all__ = [
    "ByteTensor",
    "ColumnNormed",
    "Computed",
    "Decoded",
    "Generated",
    "Mapped",
    "Merged",
    "Reader",
    "Replaced",
    "Reshaped",
    "Span",
    "Stacked",
    "Stored",
    "Strided",
    "Transposed",
    "Zeros",
    "cut_columns",
    "transpose",
]
