"""--model NAME: a checkpoint or a baseline, known by its fingerprints before anything is loaded; or an object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simcse_bench.errors import UserError
from simcse_bench.models import baselines, checkpoints, own
from simcse_bench.models.mteb_model import PREFIX
from simcse_bench.models.prompts import NO_WISH, PromptOptions

if TYPE_CHECKING:
    from simcse_bench.models.encoders import Encoder
    from simcse_bench.progress import Progress


@dataclass(frozen=True)
class Model:
    """What will be evaluated: its provenance (for the report and its key) and how to load it."""

    provenance: Mapping[str, Any]
    load: Callable[..., Encoder]  # load(progress: Progress | None = None)

    @property
    def name(self) -> str:
        """The name in reports and file names."""
        return str(self.provenance["name"])


def takes_no_settings(model: str) -> bool:
    """Whether a name means an encoder with its own settings only: a baseline, or a model of mteb's registry."""
    return baselines.is_baseline(model) or model.startswith(PREFIX)


def open_model(
    model: str | Any,
    revision: str | None = None,
    pooling: str | None = None,
    head: str | None = None,
    max_length: int | None = None,
    whiten: Path | None = None,
    dtype: str = "auto",
    device: str = "auto",
    batch_tokens: int | None = None,
    name: str | None = None,
    prompt: PromptOptions = NO_WISH,
    truncate_dim: int | None = None,
    trust_code: bool = False,
) -> Model:
    """Find a model and read its fingerprints.

    Args:
        model: folder, Hub id, catalog name, ``word-vectors:FILE``, ``random-words``, or ``mteb:NAME`` for a model of
            mteb's registry; or any object with ``encode``, such as a SentenceTransformer.
        revision, pooling, head, max_length, prompt, truncate_dim, trust_code: see ``checkpoints.resolve``; meaningless
            for word vectors, objects, and mteb's models (loaded at once; trust_code applies).
        whiten: text to fit BERT-whitening on.
        dtype: "auto": float32, or bfloat16 where the weights are stored so; of an object it is only recorded.
        device, batch_tokens: see ``loading.load_encoder``; "cuda:0,cuda:1": a copy on each, used as one.
        name: another name for reports (the settings for a known model stay those of its own name).
    """
    if isinstance(model, Path):
        model = str(model)
    ready: Any = None  # an encoder that needs no loading
    if not isinstance(model, str) or takes_no_settings(model):
        by_mteb = isinstance(model, str) and model.startswith(PREFIX)
        given = {"--pooling": pooling, "--head": head, "--max-length": max_length, "--revision": revision,
                 "--prompt, --prompt-name or --template": prompt if prompt != NO_WISH else None,
                 "--truncate-dim": truncate_dim, "--batch-tokens": batch_tokens if by_mteb else None}  # fmt: skip
        wrong = [option for option, value in given.items() if value is not None]
        if isinstance(model, str) and dtype not in ("auto", "float32"):
            wrong.append("--dtype")
        if wrong:
            shown = model if isinstance(model, str) else f"an object of {type(model).__name__}"
            raise UserError(f"{', '.join(wrong)}: does not apply to {shown}.")
        if by_mteb:
            from simcse_bench.models.mteb_model import MtebEncoder

            model = MtebEncoder(model, device, trust_code)
        if isinstance(model, str):
            ready = baselines.named_baseline(model)
            provenance = {**ready.provenance, "dtype": "float32"}
        else:
            provenance = own.describe(model, name, None if dtype == "auto" else dtype)
            ready = own.OwnEncoder(model, provenance)
    else:
        checkpoint = checkpoints.resolve(
            model, revision, pooling, head, max_length,
            prompt=prompt, truncate_dim=truncate_dim, trust_code=trust_code,
        )  # fmt: skip
        dtype = checkpoint.settled_dtype(dtype)
        provenance = {**checkpoint.provenance(), "dtype": dtype}
    provenance |= baselines.whitening_provenance(whiten) if whiten else {}
    provenance["name"] = name or provenance["name"]

    def load(progress: Progress | None = None) -> Encoder:
        encoder = ready
        if encoder is None:
            from simcse_bench.models.copies import Copies, named_devices
            from simcse_bench.models.library import load_library_encoder
            from simcse_bench.models.loading import load_encoder

            load_it = load_library_encoder if checkpoint.library else load_encoder
            devices = named_devices(device)

            def load_on(one: str, told: Progress | None) -> Any:
                return load_it(checkpoint, dtype, one, batch_tokens, told)

            encoder = Copies(load_on, devices, progress) if len(devices) > 1 else load_on(devices[0], progress)
        if whiten is not None:
            encoder = baselines.Whitened(encoder, whiten)
        encoder.provenance = {**encoder.provenance, **provenance}
        whole: Encoder = encoder
        return whole

    return Model(provenance, load)
