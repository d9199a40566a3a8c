"""SimCSE's successors: what each changes in SimCSE's step. How to add one: docs/methods.md.

Open ``simcse`` first: the plain step, and the places where a method may change it.

- ``known``       the methods by name, without torch; their settings
- ``simcse``      plain SimCSE, of which every other method is a change
- ``gs``          GS-InfoNCE: Gaussian noise as negatives
- ``esimcse``     ESimCSE: repeated words, and a momentum queue of negatives
- ``arccon``      ArcCSE's additive angular margin
- ``mixcse``      MixCSE: mixed negatives
- ``dclr``        DCLR: noise moved up the gradient, and no negatives that another model finds alike
- ``scd``         SCD: no negatives; views of two dropout rates repel, features decorrelate
- ``promptbert``  PromptBERT: two templates, less their own vectors
- ``diffcse``     DiffCSE: tokens replaced by a generator are found with the sentence's vector
- ``rankcse``     RankCSE: the batch ranked alike by both views, and as teachers rank it
- ``iscse``       IS-CSE: positives smoothed by their neighbours in a buffer
- ``simcse_pp``   SimCSE++: negatives without dropout, and a loss between dimensions
- ``cosent``      CoSENT: pairs with scores, for their order
- ``angle``       AnglE: CoSENT's loss of cosines and of angles in complex space
"""
