"""The command line: a module for each group of commands, which resolves names, calls one function and prints.

- ``evaluate``     eval
- ``rescore``      rescore
- ``train``        train
- ``experiments``  run-ablation, reproduce
- ``compare``      compare, verify, leaderboard, analyze
- ``search``       index, search, encode, demo
- ``export``       export
- ``listing``      ls, doctor, report, card, data where / fetch / sentences / check / overlap; tables: ``lists``
- ``console``      options, notes and reports that they share
- ``terminal``     a table in a terminal of any width
- ``official``     options of SimCSE's scripts and of other tools, answered with ours
"""
