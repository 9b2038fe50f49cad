"""The command line: parse, call one use case, print.

Heavy libraries are imported when a command runs, so that `--help` answers at once.
"""
