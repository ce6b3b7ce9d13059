"""Names for the arrays of this room."""

from __future__ import annotations

from typing import TypeAlias

import numpy
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[numpy.float32]
Doubles: TypeAlias = NDArray[numpy.float64]
Reals: TypeAlias = NDArray[numpy.floating]  # float32 or float16: keys and values as a cache holds them
Ints: TypeAlias = NDArray[numpy.int64]
Ids: TypeAlias = NDArray[numpy.int32]
Tokens: TypeAlias = NDArray[numpy.integer]  # ids, of any width
Bytes: TypeAlias = NDArray[numpy.uint8]
