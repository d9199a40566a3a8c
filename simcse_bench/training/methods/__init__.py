"""SimCSE's successors: what each changes in SimCSE's step. How to add one: docs/methods.md.

Open ``simcse`` first: the plain step, and the places where a method may change it.

- ``known``    the methods by name, without torch; their settings
- ``simcse``   plain SimCSE, of which every other method is a change
- ``arccon``   ArcCSE's additive angular margin
- ``mixcse``   mixed negatives
- ``gs``       GS-InfoNCE: Gaussian noise as negatives
- ``esimcse``  word repetition, and a momentum queue of negatives
- ``promptbert``  PromptBERT: two templates, less their own vectors
- ``rankcse``  RankCSE: the batch ranked alike by both views, and as teachers rank it
- ``diffcse``  DiffCSE: tokens replaced by a generator are found with the sentence's vector
- ``simcse_pp``  SimCSE++: negatives without dropout, and a loss between dimensions
- ``iscse``    IS-CSE: positives smoothed by their neighbours in a buffer
- ``dclr``     DCLR: noise moved up the gradient, and no negatives that another model finds alike
"""
