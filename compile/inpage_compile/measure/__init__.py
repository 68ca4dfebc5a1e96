"""What a compiled model takes and costs: memory at each level before it is made, perplexity and speed after."""
