"""SimCSE's successors: what each changes in SimCSE's step. How to add one: docs/methods.md.

Open ``simcse`` first: the plain step, and the places where a method may change it.

- ``known``    the methods by name, without torch; their settings
- ``simcse``   plain SimCSE, of which every other method is a change
- ``arccon``   ArcCSE's additive angular margin
- ``mixcse``   mixed negatives
- ``gs``       GS-InfoNCE: Gaussian noise as negatives
- ``esimcse``  word repetition, and a momentum queue of negatives
- ``cosent``   CoSENT: pairs with scores, for their order
- ``angle``    AnglE: CoSENT's loss of cosines and of angles in complex space
"""
