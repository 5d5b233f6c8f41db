"""What was measured: the ledger of results, what is missing in it, its pictures, and the documents made of it."""
