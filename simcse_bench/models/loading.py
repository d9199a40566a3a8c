"""Load a resolved checkpoint: model, tokenizer, head; never with random weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError

from simcse_bench.errors import UserError, first_line, unknown
from simcse_bench.files import read_json, sha256
from simcse_bench.hub import hide_transformers_bars
from simcse_bench.models import cpu_kernels, int8
from simcse_bench.models.agreement import Probe, padded, probe, run_of
from simcse_bench.models.catalog import DTYPES, INT8, pooling_parts
from simcse_bench.models.checkpoints import Checkpoint
from simcse_bench.models.encoders import TransformerEncoder
from simcse_bench.models.first_token import prepare_first_token
from simcse_bench.models.fused_bert import fused_bert
from simcse_bench.models.prompts import in_plain_quotes, with_full_stop
from simcse_bench.models.weights import DAMAGED, dense_head, mlp_head
from simcse_bench.progress import Progress

# what transformers raises for damaged or foreign files
_BROKEN = (OSError, ValueError, LookupError, RuntimeError, TypeError, AttributeError, ArithmeticError, AssertionError,
           ImportError, StrictDataclassError)  # fmt: skip

_INT8_MOVES = 0.5  # a token's vector, at the most, where 8 bits suit the model; MiniLM's 0.2
_INT8_TOKENS = 1024  # of a batch: rounding its inputs takes less while they fit into the cache


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
    hide_transformers_bars()
    with _plain_words(f"{checkpoint.name}: transformers cannot load {checkpoint.folder}"):
        tokenizer = load_tokenizer(checkpoint)
        config = load_config(checkpoint)
        if getattr(config, "is_encoder_decoder", False):
            raise UserError(f"{checkpoint.name}: {config.model_type} is an encoder-decoder; expected an encoder.")
        config.update(overrides or {})
        kind = transformers.AutoModelForMaskedLM if masked_lm else transformers.AutoModel
        whole, info = kind.from_pretrained(
            checkpoint.folder,
            config=config,
            **_local(checkpoint),
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            **({"attn_implementation": attention} if attention else {}),
        )
    model = whole.base_model if masked_lm else whole
    if checkpoint.adapter:
        model = _merged(checkpoint, model)
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
    _refuse_layers_left_out(checkpoint.name, model, info["unexpected_keys"])
    if getattr(model, "pooler", None) is not None:
        model.pooler = torch.nn.Identity()  # not None: some architectures call it without asking
    return Backbone(model, tokenizer, whole if masked_lm else None, head)


def _refuse_layers_left_out(name: str, model: Any, unexpected: Iterable[str]) -> None:
    """UserError for weights that are another layer of the model's own: config.json names fewer than there are."""

    def form(key: str) -> str:
        return re.sub(r"\.\d+(?=\.)", ".#", key.removeprefix(f"{model.base_model_prefix}."))

    own = {form(key) for key in model.state_dict()}
    left_out = sorted(key for key in unexpected if form(key) in own and not key.startswith("pooler."))
    if left_out:
        raise UserError(
            f"{name}: {len(left_out)} weights are of layers that config.json leaves out: {', '.join(left_out[:3])}"
            f"{', ...' if len(left_out) > 3 else ''}. Is its number of layers right?"
        )


def _merged(checkpoint: Checkpoint, model: Any) -> Any:
    """The model with its adapter's changes added to its weights."""
    try:
        import peft  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise UserError(
            f'{checkpoint.name} is an adapter: pip install "simcse-bench[peft]" (the package peft), or merge it before.'
        ) from None
    with _plain_words(f"{checkpoint.name}: peft cannot load the adapter in {checkpoint.adapter}"):
        return peft.PeftModel.from_pretrained(model, str(checkpoint.adapter), local_files_only=True).merge_and_unload()


def _local(checkpoint: Checkpoint) -> dict[str, Any]:
    """How transformers reads a folder: from the disk; where nothing is said of code, it asks, and a yes runs it."""
    return {"local_files_only": True, "trust_remote_code": checkpoint.trust_code}


def load_config(checkpoint: Checkpoint) -> Any:
    """transformers' config of a checkpoint."""
    import transformers

    return transformers.AutoConfig.from_pretrained(checkpoint.folder, **_local(checkpoint))


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The tokenizer alone; UserError where transformers cannot load it."""
    import transformers

    folder = checkpoint.folder
    if checkpoint.adapter and any(checkpoint.adapter.glob("tokenizer*")):
        folder = checkpoint.adapter
    with _plain_words(f"{checkpoint.name}: transformers cannot load its tokenizer"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **_local(checkpoint))
        if checkpoint.lower_case:
            _lower_first(tokenizer)
    return tokenizer


def _lower_first(tokenizer: Any) -> None:
    """Lower the case before all else that the tokenizer does: sentence-transformers' do_lower_case."""
    from tokenizers import normalizers

    own = tokenizer.backend_tokenizer.normalizer
    lower = normalizers.Lowercase()
    tokenizer.backend_tokenizer.normalizer = lower if own is None else normalizers.Sequence([lower, own])


@contextmanager
def _plain_words(what: str) -> Iterator[None]:
    """Turn what transformers raises for damaged or foreign files into a UserError."""
    try:
        yield
    except (*_BROKEN, *DAMAGED) as error:
        own = "it needs Python code of its own, which is not run. Read it, then give --trust-remote-code."
        said = own if "trust_remote_code" in str(error) else ""
        raise UserError(f"{what}: {said or first_line(error)}") from error


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
    require_loadable(dtype, batch_tokens)
    torch_dtype, where = getattr(torch, "float32" if dtype == INT8 else dtype), torch_device(device)
    if dtype == INT8 and not (where.type == "cpu" and int8.multiplies_in_int8()):
        raise UserError(
            f"--dtype int8: needs a processor with 8-bit products (VNNI) and --device cpu, found {where}. "
            "`simcse-bench doctor` says what is here."
        )
    if checkpoint.library:
        raise UserError(
            f"{checkpoint.name}: only sentence-transformers itself embeds as it should ({checkpoint.library}); "
            "for the transformers model in it give --pooling."
        )
    backbone = load_backbone(checkpoint, torch_dtype)
    max_length = _max_length(checkpoint, backbone)
    model = backbone.model.eval().to(where)
    parameters = sum(p.numel() for p in model.parameters())  # our layers hold them in other forms
    expected = probe(checkpoint.name, run_of(model), backbone.tokenizer, max_length, torch_dtype)
    notes = _code_notes(checkpoint)
    if expected.padding_moves:
        notes.append(
            f"{checkpoint.name}: padding changes this architecture's vectors (by {expected.apart:.0%}): only sentences "
            "of one length share a batch."
        )
    fast = where.type == "cpu" and cpu_kernels.supported(torch_dtype)
    if dtype == INT8:
        expected = _in_int8(checkpoint.name, model, expected)
    elif fast and not _quickened(model, expected):
        fast, model = False, load_backbone(checkpoint, torch_dtype).model.eval()
        notes.append(f"{checkpoint.name}: without our faster layers, which change this architecture's vectors.")
    fused = fused_bert(model, expected) if fast else None
    first_token = checkpoint.spec.pooling == "cls" and fused is None  # which has that of its own
    first_token = first_token and prepare_first_token(model, run_of(model), expected)
    heads: dict[str, Any] = {"none": None}
    if checkpoint.spec.head == "mlp":
        mlp = dense_head(checkpoint.dense) if checkpoint.dense else mlp_head(checkpoint.name, checkpoint.folder)
        width = expected.alone[0].shape[-1] * len(pooling_parts(str(checkpoint.spec.pooling)))
        if mlp[0].in_features != width:
            raise UserError(f"{checkpoint.name}: its head takes {mlp[0].in_features} values, not {width}.")
        heads["mlp"] = mlp.to(where)
        parameters += sum(p.numel() for p in mlp.parameters())
    width = heads["mlp"][0].out_features if checkpoint.spec.head == "mlp" else expected.alone[0].shape[-1]
    width *= len(pooling_parts(str(checkpoint.spec.pooling))) if checkpoint.spec.head == "none" else 1
    if checkpoint.truncate_dim is not None and checkpoint.truncate_dim > width:
        raise UserError(f"truncate_dim {checkpoint.truncate_dim}: {checkpoint.name} gives only {width} dimensions.")
    return TransformerEncoder(
        model,
        backbone.tokenizer,
        heads,
        (str(checkpoint.spec.pooling), checkpoint.spec.head),
        max_length,
        preprocess=_preprocessor(checkpoint.spec.preprocess),
        prompt=checkpoint.prompt,
        normalize=checkpoint.normalize,
        truncate_dim=checkpoint.truncate_dim,
        batch_tokens=batch_tokens or (_INT8_TOKENS if dtype == INT8 else 0),
        first_token=first_token,
        fused=fused,
        padding=not expected.padding_moves,
        provenance={
            **checkpoint.provenance(),
            "max_length_used": max_length,
            "parameters": parameters,
            "dtype": dtype,
            "device": str(where),
            "kernels": "int8" if dtype == INT8 else "oneDNN" if fast else "torch",
        },
        progress=progress,
        notes=notes,
    )


def _code_notes(checkpoint: Checkpoint) -> list[str]:
    """Which Python code in the folder runs, where that is allowed."""
    config = read_json(checkpoint.folder / "config.json")
    files = [f"{p.name} ({sha256(p)})" for p in sorted(checkpoint.folder.glob("*.py"))]
    if not checkpoint.trust_code or not (files or config.get("auto_map")):
        return []
    names = ", ".join(files) or ", ".join(str(v) for v in config["auto_map"].values())
    of = f" of revision {checkpoint.revision}" if checkpoint.revision else ""
    return [f"{checkpoint.name}: Python code of its own{of} runs: {names}."]


def require_loadable(dtype: str, batch_tokens: int | None, dtypes: Sequence[str] = (*DTYPES, INT8)) -> None:
    """UserError for a type or a budget that no model is loaded with."""
    if dtype not in dtypes:
        raise unknown("dtype", dtype, dtypes)
    if batch_tokens is not None and batch_tokens < 1:
        raise UserError(f"--batch-tokens {batch_tokens}: expected at least 1 token.")


def _max_length(checkpoint: Checkpoint, backbone: Backbone) -> int:
    """Tokens that a sentence is cut to; UserError for a length that the model does not take."""
    limit = length_limit(backbone.model, backbone.tokenizer)
    max_length = checkpoint.spec.max_length or limit
    if max_length > limit:
        raise UserError(f"--max-length {max_length}: {checkpoint.name} takes at most {limit} tokens.")
    special = backbone.tokenizer.num_special_tokens_to_add()
    if max_length <= special:
        raise UserError(
            f"--max-length {max_length}: {special} of them are special tokens; expected at least {special + 1}."
        )
    return max_length


def follows_attention(model: Any) -> bool:
    """Whether a model calls the attention that it is told by name, and hands it masks as torch's own takes them."""
    return bool(getattr(model, "_supports_attention_backend", False) and getattr(model, "_supports_sdpa", False))


def _quickened(model: Any, expected: Probe) -> bool:
    """Give a model the fast layers in place; False where it is not the same model with them."""
    if follows_attention(model):
        model.set_attn_implementation(cpu_kernels.register_short_attention())
    cpu_kernels.pack_linears(model)
    return expected.agrees(run_of(model))


def _in_int8(name: str, model: Any, expected: Probe) -> Probe:
    """Give a model 8-bit layers in place; what it gives with them.

    Raises:
        UserError: its vectors move too far.
    """
    run = run_of(model)
    smooth = int8.smoothing(model, lambda: [run(*padded([x], 0)) for x in expected.ids])
    cpu_kernels.pack_linears(model, lambda linear, gelu: int8.Int8Linear(linear, gelu, smooth.get(linear)))
    moved = expected.distance(run_of(model))
    if not moved <= _INT8_MOVES:
        raise UserError(
            f"{name}: --dtype int8 moves its vectors by {moved:.0%}, more than the {_INT8_MOVES:.0%} that 8 bits "
            "explain. Use --dtype float32."
        )
    return replace(expected, alone=[run_of(model)(*padded([x], 0))[0].float() for x in expected.ids])


def _check_vocabulary(checkpoint: Checkpoint, tokenizer: Any, model: Any) -> None:
    """transformers makes an empty tokenizer where the files are missing: every word would be unknown."""
    try:
        vocabulary = tokenizer.get_vocab()
    except NotImplementedError:
        vocabulary = {}
    if len(vocabulary) <= len(set(tokenizer.all_special_tokens)):
        raise UserError(
            f"{checkpoint.name}: no vocabulary in {checkpoint.folder}; expected tokenizer.json or vocab.txt."
        )
    try:
        rows = len(model.get_input_embeddings().weight)
    except (NotImplementedError, AttributeError):
        raise UserError(f"{checkpoint.name}: {type(model).__name__} has no table of token embeddings.") from None
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
    if "," in device:
        raise UserError(
            f"--device {device}: one device is expected here. Several GPUs embed in eval, encode, index and "
            "search; they train with torchrun (docs/train.md)."
        )
    if device != "cpu" and device.split(":")[0] not in ("cuda", "mps"):  # a processor has no number
        raise UserError(f"--device {device}: not available. Known: auto, cpu, cuda, cuda:1, mps.")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"--device {device}: not available ({first_line(error)}). Known: auto, cpu, cuda, mps; "
            "`simcse-bench doctor` says what is here."
        ) from error
    return chosen


def length_limit(model: Any, tokenizer: Any) -> int:
    """Most tokens the model takes: its position table (RoBERTa's starts after the padding index), the tokenizer."""
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    limit = int(getattr(model.config, "max_position_embeddings", 0) or 10**9)
    limit = 10**9 if limit < 0 else limit  # XLNet's -1: no limit
    if table is not None and hasattr(table, "num_embeddings"):
        limit = table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
    return min(limit, int(min(tokenizer.model_max_length, 10**9)))


def _preprocessor(name: str | None) -> Callable[[str], str] | None:
    """What ``PREPROCESSES`` says of a name, as a function."""
    if name != "pyvi":
        return {None: None, "promptbert": with_full_stop, "prompteol": in_plain_quotes}[name]
    try:
        from pyvi import ViTokenizer
    except ImportError:
        raise UserError(
            'this model needs Vietnamese word segmentation: pip install "simcse-bench[vi]" (the package pyvi).'
        ) from None
    return ViTokenizer.tokenize  # type: ignore[no-any-return]
