"""From a name to an opened model, and from an image to the restored one: planes, tiles, memory, pipeline."""
