"""Sources: what lies on disk as named tensors that can be read by bytes or by rows."""
