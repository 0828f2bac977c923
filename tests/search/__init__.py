"""The search: many interleavings of 21 shapes of pipelines, with cancels, faults and crashes at every step."""
