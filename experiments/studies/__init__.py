"""Short scripts, each with one question, one figure and one table."""
