"""Values at the edges of a call: of which type they are, how they are cast, and what a signature takes."""
