"""Many files through one model: which becomes which, what is done already, several under way at once."""
