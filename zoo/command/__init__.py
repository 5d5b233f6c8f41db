"""What the `zoo` command does: the parser, the verbs, recipes and run folders.

Only this package and those that tell of its runs (`zoo.results`, `zoo.report`, `zoo.inference`) know recipes. What
`zoo list` and `zoo --help` need imports neither torch nor lightning.
"""
