"""Files that appear whole or not at all: planned offsets, hashing while writing, atomic finish, lists of checksums."""
