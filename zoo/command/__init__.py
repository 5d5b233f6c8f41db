"""What the `zoo` command does: the parser, the verbs, recipes, run folders and the ledger of results.

The only package that knows recipes. What `zoo list` and `zoo --help` need imports neither torch nor lightning.
"""
