"""From a file or the Hub to pairs, labelled sentences and rows of training text.

Open ``task`` first: a task is one YAML file.

- ``task``          Task, EvalProtocol: what is measured, under which rules
- ``task_yaml``     a task's YAML file -> Task, every field checked
- ``registry``      names -> tasks and suites
- ``senteval``      where the evaluation data is: option, variable, cache, Hub; ``DataSource``
- ``reading``       the data of a task of any kind
- ``rows``          formats of tables and SemEval's files -> rows, every one checked
- ``pairs``         STS tasks -> ``Pairs``; where the data of tasks is looked for
- ``judged``        paraphrase and triplet tasks
- ``ranking``       queries, positives, candidates: a user's file, or EvalRank's from STS tasks
- ``perturbations`` sentences changed by rule: case, typos, negation, word order
- ``labelled``      formats of the transfer tasks -> ``Labelled``, in SentEval's order
- ``hub_datasets``  Hub datasets as pairs, and where their copies may lie
- ``overlap``       which of some sentences stand in a text: exactly, normalised, inside it, or nearly
- ``corpus``        training text: files, the official ones by name, Hub datasets
- ``text_formats``  .txt .csv .tsv .jsonl .parquet -> rows
"""
