"""Chat templates: Jinja programs from files that anyone may have made, run where they can do no harm.

`sandbox.py` is what the rest of quantcli calls; `interpreter.py` is the program of its own that runs a template, with
limits of time, memory and output.
"""
