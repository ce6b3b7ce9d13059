"""Lazy views of stored tensors: everything that a transform can do to rows without reading a whole tensor."""
