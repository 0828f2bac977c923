"""The search: many interleavings of thirteen shapes of pipelines, with cancels, faults and crashes at every step."""
