"""The algorithms, one a file, behind one small protocol."""
