"""The search: many interleavings of twelve shapes of pipelines, with cancels, faults and crashes at every step."""
