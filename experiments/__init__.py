"""How it is run: recipes (YAML), the ledger of results, loggers, studies, benchmarks and scripts."""
