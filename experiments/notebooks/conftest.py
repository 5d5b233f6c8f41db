"""A notebook's script is run by tests/test_documents.py; imported while doctests are looked for, it would train."""

collect_ignore = ["quickstart.py"]
