"""Engines run a PackedModel on float32 tiles; they see no files, tiles, colours or flags."""
