"""A model made smaller than its source, each step with its price: tokens, layers, bits of the embedding."""
