"""Dead letters: the index, and what is done with it."""
