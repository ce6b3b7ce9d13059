"""How good a model is: perplexity, divergence from a reference, and the errors of these figures."""
