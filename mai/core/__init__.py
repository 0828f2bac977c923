"""The mechanism: what one call is. Nothing here is imported by users; see `mai`, `mai.types` and `mai.layers`."""
