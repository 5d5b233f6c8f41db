"""Notebooks, written as scripts in which `# %%` begins a cell; `python -m experiments.notebooks.convert` makes them."""
