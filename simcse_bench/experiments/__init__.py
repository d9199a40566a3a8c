"""Many trainings: ablations, grids, whole papers.

Open ``ablations`` first (what is varied), then ``run`` (how it is run).

- ``ablations``     the paper's ablations as data: arms, published column, findings
- ``sweep``         what will be run: arms times seeds, or a grid
- ``trial``         one arm under one seed, trained and measured
- ``run``           every missing trial run by an executor, each result written once
- ``ray``           the executor on a Ray cluster
- ``board``         the live table of the arms
- ``summary``       means, differences, the paper's statements held against them: pure
- ``reproduction``  a whole paper, onto one page
- ``steps``         the pieces of that work, and what of each is missing
"""
