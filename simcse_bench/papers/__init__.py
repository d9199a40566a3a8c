"""Published tables (``*.csv``, the source in each first line), and what a paper states.

- ``published``    reads them; the row that a model's numbers are compared with
- ``simcse_2021``  SimCSE as data: tables, figures, main models, findings
"""
