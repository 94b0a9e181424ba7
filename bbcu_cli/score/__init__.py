"""Scores, and the degradations that they are measured on."""
