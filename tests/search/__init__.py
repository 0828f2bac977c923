"""The search: many interleavings of fourteen shapes of pipelines, with cancels, faults and crashes at every step."""
