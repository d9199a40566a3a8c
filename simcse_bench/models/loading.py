"""Load a resolved checkpoint: model, tokenizer, head; never with random weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError

from simcse_bench.errors import UserError, first_line, unknown
from simcse_bench.models import cpu_kernels
from simcse_bench.models.catalog import DTYPES
from simcse_bench.models.checkpoints import Checkpoint
from simcse_bench.models.encoders import TransformerEncoder
from simcse_bench.models.weights import DAMAGED, dense_head, mlp_head
from simcse_bench.progress import Progress

# what transformers raises for damaged or foreign files
_BROKEN = (OSError, ValueError, LookupError, RuntimeError, TypeError, AttributeError, ArithmeticError, ImportError,
           StrictDataclassError)  # fmt: skip


@dataclass(frozen=True)
class Backbone:
    """A transformers encoder without a pooling layer, and its tokenizer."""

    model: Any
    tokenizer: Any
    lm: Any = None  # the masked-language model around it, where that was asked for
    random: tuple[str, ...] = ()  # weights of that model's head that the checkpoint lacks


def load_backbone(
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    attention: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    masked_lm: bool = False,
) -> Backbone:
    """Load a checkpoint's encoder and tokenizer onto the processor.

    Args:
        checkpoint: from ``checkpoints.resolve``.
        dtype: of the weights.
        attention: name of the attention implementation; None: transformers' choice.
        overrides: fields of the model's config to change, dropout probabilities for example.
        masked_lm: with the head for masked-language modelling.

    Raises:
        UserError: weights missing from the checkpoint (they would be random), an architecture or tokenizer that
            transformers cannot load.
    """
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with _plain_words(f"{checkpoint.name}: transformers cannot load {checkpoint.folder}"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True)
        config = transformers.AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True)
        if getattr(config, "is_encoder_decoder", False):
            raise UserError(f"{checkpoint.name}: {config.model_type} is an encoder-decoder; expected an encoder.")
        config.update(overrides or {})
        kind = transformers.AutoModelForMaskedLM if masked_lm else transformers.AutoModel
        whole, info = kind.from_pretrained(
            checkpoint.folder,
            config=config,
            local_files_only=True,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            **({"attn_implementation": attention} if attention else {}),
        )
    model = whole.base_model if masked_lm else whole
    _check_vocabulary(checkpoint, tokenizer, model)
    absent = sorted([*info["missing_keys"], *(f"{k[0]} (of another shape)" for k in info["mismatched_keys"])])
    prefix = f"{whole.base_model_prefix}." if masked_lm else ""
    head = tuple(k for k in absent if not k.startswith(prefix))
    # the pooling layer is ours (see weights.mlp_head), so that its absence is never filled with random weights
    missing = [k.removeprefix(prefix) for k in absent if k.startswith(prefix)]
    missing = [k for k in missing if not k.startswith("pooler.")]
    if missing:
        raise UserError(
            f"{checkpoint.name}: {len(missing)} weights are missing from the checkpoint and would be random: "
            f"{', '.join(missing[:8])}{', ...' if len(missing) > 8 else ''}. Is it complete, and of this architecture?"
        )
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return Backbone(model, tokenizer, whole if masked_lm else None, head)


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The tokenizer alone; UserError where transformers cannot load it."""
    import transformers

    with _plain_words(f"{checkpoint.name}: transformers cannot load its tokenizer"):
        return transformers.AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True)


@contextmanager
def _plain_words(what: str) -> Iterator[None]:
    """Turn what transformers raises for damaged or foreign files into a UserError."""
    try:
        yield
    except (*_BROKEN, *DAMAGED) as error:
        raise UserError(f"{what}: {first_line(error)}") from error


def load_encoder(
    checkpoint: Checkpoint,
    dtype: str = "float32",
    device: str = "auto",
    batch_tokens: int | None = None,
    progress: Progress | None = None,
) -> TransformerEncoder:
    """Load model, tokenizer and head for encoding.

    Raises:
        UserError: whatever ``load_backbone`` refuses, a length above the model's limit.
    """
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    if batch_tokens is not None and batch_tokens < 1:
        raise UserError(f"--batch-tokens {batch_tokens}: expected at least 1 token.")
    torch_dtype, where = getattr(torch, dtype), torch_device(device)
    fast = where.type == "cpu" and cpu_kernels.supported(torch_dtype)
    backbone = load_backbone(checkpoint, torch_dtype, cpu_kernels.register_short_attention() if fast else None)
    model, tokenizer = backbone.model, backbone.tokenizer
    limit = length_limit(model, tokenizer)
    max_length = checkpoint.spec.max_length or limit
    if max_length > limit:
        raise UserError(f"--max-length {max_length}: {checkpoint.name} takes at most {limit} tokens.")
    special = tokenizer.num_special_tokens_to_add()
    if max_length <= special:
        raise UserError(
            f"--max-length {max_length}: {special} of them are special tokens; expected at least {special + 1}."
        )
    heads: dict[str, Any] = {"none": None}
    if checkpoint.spec.head == "mlp":
        mlp = dense_head(checkpoint.dense) if checkpoint.dense else mlp_head(checkpoint.name, checkpoint.folder)
        width = model.config.hidden_size
        if mlp[0].in_features != width:
            raise UserError(f"{checkpoint.name}: its head takes {mlp[0].in_features} values, not {width}.")
        heads["mlp"] = mlp.to(where)
    model = model.to(where)
    if fast:
        cpu_kernels.pack_linears(model)
    return TransformerEncoder(
        model,
        tokenizer,
        heads,
        (str(checkpoint.spec.pooling), checkpoint.spec.head),
        max_length,
        preprocess=_preprocessor(checkpoint.spec.preprocess),
        normalize=checkpoint.normalize,
        batch_tokens=batch_tokens or 0,
        provenance={
            **checkpoint.provenance(),
            "max_length_used": max_length,
            "dtype": dtype,
            "device": str(where),
            "kernels": "oneDNN" if fast else "torch",
        },
        progress=progress,
    )


def _check_vocabulary(checkpoint: Checkpoint, tokenizer: Any, model: Any) -> None:
    """transformers makes an empty tokenizer where the files are missing: every word would be unknown."""
    vocabulary = tokenizer.get_vocab()
    if len(vocabulary) <= len(set(tokenizer.all_special_tokens)):
        raise UserError(
            f"{checkpoint.name}: no vocabulary in {checkpoint.folder}; expected tokenizer.json or vocab.txt."
        )
    rows = model.get_input_embeddings().num_embeddings
    if max(vocabulary.values()) >= rows:
        raise UserError(
            f"{checkpoint.name}: its tokenizer numbers up to {max(vocabulary.values())}, but the model has "
            f"{rows} embeddings; the tokenizer belongs to another model."
        )


def torch_device(device: str) -> Any:
    """A torch device; "auto" is CUDA, else Apple's GPU, else the processor."""
    if device == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    if device.split(":")[0] not in ("cpu", "cuda", "mps"):
        raise UserError(f"--device {device}: not available. Known: auto, cpu, cuda, cuda:1, mps.")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"--device {device}: not available ({first_line(error)}). Known: auto, cpu, cuda, mps."
        ) from error
    return chosen


def length_limit(model: Any, tokenizer: Any) -> int:
    """Most tokens the model takes: its position table (RoBERTa's starts after the padding index), the tokenizer."""
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    limit = int(getattr(model.config, "max_position_embeddings", 0) or 10**9)
    if table is not None and hasattr(table, "num_embeddings"):
        limit = table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
    return min(limit, int(min(tokenizer.model_max_length, 10**9)))


def _preprocessor(name: str | None) -> Callable[[str], str] | None:
    if name is None:
        return None
    try:
        from pyvi import ViTokenizer
    except ImportError:
        raise UserError(
            'this model needs Vietnamese word segmentation: pip install "simcse-bench[vi]" (the package pyvi).'
        ) from None
    return ViTokenizer.tokenize  # type: ignore[no-any-return]
