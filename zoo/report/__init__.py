"""Web pages on runs: what came out, how it came about and where it goes wrong, each in one file without a network.

A page is made from what a run folder holds: `config.yaml`, `metrics.csv`, `run.json` (of the recorder), `items/*.json`
(of the galleries) and `pictures`. Nothing that reads these imports Lightning, so that a page can be made anywhere.
"""
