"""The command line: a module for each group of commands, which resolves names, calls one function and prints.

- ``evaluate``     eval
- ``train``        train
- ``experiments``  run-ablation, reproduce
- ``compare``      compare, verify, leaderboard, analyze
- ``search``       index, search, encode, demo
- ``export``       export
- ``listing``      ls, doctor, report, data where / fetch / check / overlap; ``lists`` holds the tables they show
- ``console``      options, notes and reports that they share
- ``terminal``     a table in a terminal of any width
- ``official``     options of SimCSE's scripts and of other tools, answered with ours
"""
