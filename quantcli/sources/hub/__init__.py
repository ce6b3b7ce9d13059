"""The hub as a source: `hf://org/name[@revision][/folder]`, read by ranges, without a copy of the weights.

``address.py`` understands what was typed, ``client.py`` asks the hub's client and says what went wrong, ``tree.py``
gives a commit its folder: small files in the client's cache, large ones mounted there; ``ranges.py`` fetches bytes,
``blocks.py`` keeps them until they are read, ``sums.py`` hashes them, ``remote.py`` is a mounted file.
"""
