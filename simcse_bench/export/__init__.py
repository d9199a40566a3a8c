"""A model for other libraries.

Open ``run`` first.

- ``run``      an export, held against our own embeddings before anything is left behind
- ``parity``   embeddings through an export, as its users compute them
- ``onnx``     encoder, pooling and head as one graph
- ``card``     README.md of an export: scores, training, geometry, usage
- ``publish``  on the Hugging Face Hub
"""
