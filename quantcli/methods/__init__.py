"""How a matrix becomes blocks: one file and one row of table.py per method, all behind the seam in seam.py."""
