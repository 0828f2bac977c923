"""Values at the edges of a call: their types and casts, what a signature takes, and what is told of a run."""
