"""What ggml defines: the table of tensor types and the C kernels that encode and decode them."""
