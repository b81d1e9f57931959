"""The command line: one file per verb, each holding a click command named ``command``."""
