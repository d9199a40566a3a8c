"""Models of sentence-transformers that our own path does not read: the library itself embeds, in our batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from simcse_bench.errors import UserError, first_line
from simcse_bench.models.catalog import DTYPES
from simcse_bench.models.checkpoints import Checkpoint
from simcse_bench.models.encoders import Array, batch_defaults, embed_in_batches
from simcse_bench.models.loading import require_loadable, torch_device
from simcse_bench.models.prompts import Prompt
from simcse_bench.progress import Progress


@dataclass(eq=False)
class LibraryEncoder:
    """A SentenceTransformer; see ``encoders.TransformerEncoder`` for what the two have in common."""

    model: Any
    prompt: Prompt
    device: torch.device
    batch_tokens: int = 0
    truncate_dim: int | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    progress: Progress | None = None
    notes: Sequence[str] = ()
    stats: dict[str, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.batch_tokens = self.batch_tokens or batch_defaults(self.device)[0]

    def encode(self, sentences: Sequence[str]) -> Array:
        """Embeddings (n, d)."""
        texts = [s + self.prompt.suffix for s in sentences]
        self.stats = {}
        vectors = embed_in_batches(
            self._lengths(texts),
            lambda rows: [self._embed([texts[i] for i in rows])],
            # no padding: the library's CNN, for one, looks at it
            self.batch_tokens, 0.0, self.stats, str(self.device), self.progress,
        )  # fmt: skip
        return vectors[0] if vectors else np.zeros((0, 0), dtype=np.float32)

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of every text; words, where the first module has no tokenizer."""
        tokenizer: Any = getattr(self.model, "tokenizer", None)
        if hasattr(tokenizer, "encode_batch"):
            return [max(1, len(x.ids)) for x in tokenizer.encode_batch(list(texts))]
        if callable(tokenizer) and texts:
            return [max(1, len(x)) for x in tokenizer(list(texts), verbose=False)["input_ids"]]
        if hasattr(tokenizer, "tokenize"):
            return [max(1, len(tokenizer.tokenize(text))) for text in texts]
        return [len(text.split()) + 1 for text in texts]

    def _embed(self, texts: list[str]) -> Array:
        vectors: Array = self.model.encode(
            texts, prompt=self.prompt.prefix, batch_size=len(texts), show_progress_bar=False, convert_to_numpy=True,
            truncate_dim=self.truncate_dim,
        )  # fmt: skip
        return vectors.astype(np.float32)


def load_library_encoder(
    checkpoint: Checkpoint,
    dtype: str = "float32",
    device: str = "auto",
    batch_tokens: int | None = None,
    progress: Progress | None = None,
) -> LibraryEncoder:
    """Load a folder through sentence-transformers.

    Raises:
        UserError: Python code in the folder that was not trusted, or whatever the library refuses.
    """
    import sentence_transformers

    require_loadable(dtype, batch_tokens, DTYPES)  # the library has no 8-bit products of ours
    where = torch_device(device)
    code = checkpoint.modules.code if checkpoint.modules else ()
    if code and not checkpoint.trust_code:
        raise UserError(
            f"{checkpoint.name}: needs Python code of its own ({', '.join(code)}), which is not run. "
            "Read it, then give --trust-remote-code."
        )
    try:
        model = sentence_transformers.SentenceTransformer(
            str(checkpoint.folder), device=str(where), trust_remote_code=checkpoint.trust_code, local_files_only=True,
            model_kwargs={"dtype": getattr(torch, dtype)} if dtype != "float32" else None,
        )  # fmt: skip
        if checkpoint.spec.max_length is not None:
            model.max_seq_length = checkpoint.spec.max_length
        model.eval()
        width = model.encode(["a"], show_progress_bar=False).shape[-1]
    except Exception as error:
        raise UserError(f"{checkpoint.name}: sentence-transformers cannot load it: {first_line(error)}") from error
    if checkpoint.truncate_dim is not None and checkpoint.truncate_dim > width:
        raise UserError(f"truncate_dim {checkpoint.truncate_dim}: {checkpoint.name} gives only {width} dimensions.")
    by = f"sentence-transformers {sentence_transformers.__version__}"
    return LibraryEncoder(
        model, checkpoint.prompt, where, batch_tokens or 0, checkpoint.truncate_dim,
        provenance={**checkpoint.provenance(), "parameters": sum(p.numel() for p in model.parameters()),
                    "dtype": dtype, "device": str(where), "encoded_by": by},
        progress=progress,
        notes=[f"{checkpoint.name}: embedded by {by}, for {checkpoint.library}."],
    )  # fmt: skip
