"""Files <-> pixels, and the colour arithmetic between them."""
