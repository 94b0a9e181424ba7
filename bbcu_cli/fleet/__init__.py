"""Archives: pictures in object stores, and many machines; the listing is a stream, and nothing holds all names."""
