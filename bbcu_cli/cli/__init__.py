"""The command line: parse, call one library function, print. Nothing here computes."""
