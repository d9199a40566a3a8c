"""From vectors to scores.

Open ``run`` first (names -> a saved report), then ``evaluate`` (vectors -> scores).

- ``run``         one evaluation from names to a saved report; finished work is found by its key
- ``evaluate``    read the tasks, embed every distinct sentence once, score
- ``ray``         several suites on a cluster
- ``rescore``     a saved report's pairs scored again, without model and data
- ``scoring``     the scores of one task of any kind, with their intervals
- ``metrics``     cosine, correlation, aggregation, the record of a pair: pure functions
- ``statistics``  bootstrap, two systems compared, Holm
- ``ranking``     ranks of the positives among candidates; means over queries or triplets
- ``paraphrase``  average precision, thresholds, F1 and accuracy by the cosine
- ``probe``       SentEval's folds and grid of L2 (and of an MLP's sizes)
- ``classifiers`` many classifiers at once, each as SentEval trains one
- ``networks``    what they are: logistic regressions, or networks with one hidden layer
- ``relatedness`` SentEval's regression of a pair's score
- ``geometry``    alignment, uniformity, spectrum; a model's whole analysis
- ``robustness``  scores and vectors where sentences are changed by rule
- ``analyses``    what the analyses of models share: pairs, the file of each
- ``compare``     two reports
- ``verify``      a model against its published numbers
- ``overlap``     training text searched for the tasks' sentences
- ``exclusion``   evaluation without the rows that were found
- ``dry_run``     what would be loaded and why
- ``mteb/``       mteb's tasks with our encoder, our encoder as a model of mteb
"""
