"""From a name to vectors.

Open ``open`` first: it goes through the others in their order.

- ``catalog``      poolings, heads, the models whose settings are known
- ``open``         --model NAME: a checkpoint or a baseline; or an object
- ``checkpoints``  find a model's files, decide pooling and head from what is known
- ``identity``     what decides a vector: the one list for keys, indices, cards and tables
- ``modules``      what a folder of sentence-transformers says, and whether it is read here
- ``prompts``      what is put around a sentence; tokens
- ``weights``      weights read without pickle, heads made of them
- ``loading``      model, tokenizer and head loaded, never with random weights
- ``agreement``    is it the model that transformers runs? probed when it is loaded
- ``encoders``     the Encoder protocol, ``pool()``, batches without padding
- ``copies``       one model on several GPUs
- ``library``      other forms of sentence-transformers, embedded by the library itself
- ``own``          an object of the user's own: its vectors as ours, its fingerprints
- ``mteb_model``   mteb:NAME, loaded and prompted by mteb's registry
- ``first_token``  the last layer for [CLS] alone
- ``fused_bert``   BERT in few calls, batches side by side, for CPUs
- ``cpu_kernels``  oneDNN linear layers, attention, dropout for CPUs
- ``int8``         8-bit linear layers for processors that have such products
- ``baselines``    word vectors, given or random; BERT-whitening
- ``saving``       a model as a folder that transformers, sentence-transformers and ``eval`` read
"""
