"""Run a model on the CPU: ids in, logits out. evaluate measures with it, calibration watches it, commands write text.

`session.py` opens a model; `network.py` is the forward pass over `layers.py`, `attention.py`, `feed_forward.py`, driven
by the graph declaration and the file's metadata (`settings.py`); `operations.py` is what it computes with, in numpy,
`products.py` the same in C over `steps.py`; `observe.py` says who may watch; `replay.py` repeats one token's steps.
"""
