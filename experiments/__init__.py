"""How it is run: recipes (YAML), the ledger of results, and what stands between them."""
