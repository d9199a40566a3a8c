"""From text to a model folder.

Open ``run`` first (names -> a model folder), then ``train`` (the loop).

- ``run``         one run from names to a folder: what is there decides what happens
- ``config``      TrainConfig: every setting with its source
- ``recipes``     named ones, and the settings of ``--set``
- ``job``         everything read and checked before the first step
- ``tokenised``   text tokenised once, memory-mapped
- ``augment``     Tables 1 and 2: crop, deletion, synonyms, MLM; next sentence
- ``model``       encoder, pooling, MLP: token ids -> vectors with gradients
- ``losses``      the paper's losses as pure functions
- ``methods/``    SimCSE's successors: what each changes in its step
- ``gradients``   loss and gradients of one batch, plain or cached
- ``graphs``      on a GPU: a batch's passes through the encoder in one launch each
- ``processes``   one process or several: gathering, averaging
- ``together``    one run trained by several processes of this machine
- ``selection``   the dev score that selects weights; geometry on the way
- ``folder``      train.json, log, checkpoints that are whole or not there
- ``train``       the loop, and what happens in it
- ``optimizer``   AdamW, the learning rate, one update of the weights
- ``dry_run``     steps, memory and time by a few updates
"""
