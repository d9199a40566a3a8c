"""The tool people know: the official package's class, and the commands around it.

- ``simcse``       SimCSE: embed, compare, search
- ``nearest``      unit vectors -> the nearest by cosine, exactly
- ``faiss``        the same through faiss, approximately too: HNSW, IVF, their recall
- ``index``        sentences with their vectors, searched; an index on disk
- ``encode_file``  a file's sentences -> a file of vectors, in constant memory, resumable
- ``ray``          the same on a cluster
- ``vectors``      such a file as a model: sentences looked up
- ``demo``         the demo's server and page
"""
