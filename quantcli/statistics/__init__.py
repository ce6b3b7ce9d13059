"""What is known of a model's inputs, in files: importance matrices today."""
