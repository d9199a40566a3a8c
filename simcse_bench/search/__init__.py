"""The tool people know: the official package's class, and the commands around it.

- ``simcse``       SimCSE: embed, compare, search
- ``index``        the nearest by cosine, exactly; an index on disk
- ``encode_file``  a file's sentences -> a file of vectors, in constant memory, resumable
- ``vectors``      such a file as a model: sentences looked up
- ``demo``         the demo's server and page
"""
