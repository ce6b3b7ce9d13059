"""Packed checkpoints: a group of stored tensors (codes, scales, zero points ...) is one logical tensor.

A checkpoint that says ``quantization_config`` in its config.json keeps its matrices in parts. Before a family sees
them, `unpack.Packing` puts every group together: the parts leave the list of tensors, and in the place of the codes
stands what the unpacked checkpoint would hold, with its name, its shape and rows that can be read lazily. Families know
nothing of packing.

A format is one file here and one line in `unpack.FORMATS`. Shared pieces: ``scales.py`` (which weights a scale covers,
and what a scale must not be), ``rows.py`` (codes row after row with their scales; codes along columns), and the kernels
of ``ggml/packing.py``, which decode. The file ends with a `group.Format`:

- ``method``: the ``quant_method`` that config.json names. Several formats may share one.
- ``recognise(settings, tensors)``: whether these settings and these tensors (by name) are of this format. The method
  fits already; look at the rest (number of bits, strategy, ``format``, version) and at what is really there.
- ``parts``: the endings of the stored names, the codes' first. A group is all tensors with one name before these
  endings. ``marks`` are those of which each alone shows that there is a group: only the scales, where the codes have a
  usual name such as ``.weight`` and single layers may be left unpacked. ``optional`` are the parts that may be missing.
- ``takes(parts)``: of several formats of one method, whether this one reads a group that has these parts.
- ``logical(settings, group)``: checks the parts' dtypes and shapes (`group.check`) and gives the tensors that the group
  stands for, usually one.

What ``logical`` gives is a `tensor.LogicalTensor` around a view (`views.Reader`):

- A format that is also a tensor type (MXFP4, NVFP4) gives a view whose ``stored`` is this type and whose ``gather``
  moves bits only: such rows are copied into the output without being decoded. Row permutations of families work on it
  as on any other. ``exact`` gives the values, for outputs of other types. Numbers that stay apart in GGUF are its
  ``factors``.
- Every other format gives a `views.Computed`: ``values(index)`` are any rows as float32 (one rounding, in the order
  that the format's authors define), made from those parts of codes and scales alone that these rows need.
- Where the unpacked tensor is the transpose of what is packed, ``views.transpose`` goes around the view. A
  family that turns it back meets the packed rows again, undecoded.
"""
