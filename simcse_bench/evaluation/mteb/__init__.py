"""mteb both ways.

- ``adapter``    ``mteb_model()``: our encoder as a model of mteb
- ``selection``  which of mteb's tasks and benchmarks a name means
- ``run``        ``--suite mteb:...``: run by mteb, kept in a cache by the content of the model
"""
