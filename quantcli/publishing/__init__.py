"""A release: everything that is published of a model, from one file that describes it."""
