"""``--model mteb:NAME``: a model as mteb's registry loads and prompts it, scored by our protocols.

``evaluation/mteb/`` is the other direction: a model of ours on mteb's tasks.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from simcse_bench.data.registry import builtin_names, same_name
from simcse_bench.errors import UserError, first_line, suggestion
from simcse_bench.files import ENV_CACHE, cache_dir
from simcse_bench.hub import hub_errors
from simcse_bench.models.prompts import SLOT

PREFIX = "mteb:"
TASK = "STSBenchmark"  # mteb chooses prompts by task: every sentence of ours is prompted as of this one
_BATCH = 32
_INSTRUCTED = ("instruction_template", "prompts_dict", "apply_instruction_to_passages")  # a wrapper that puts a task's


def import_mteb() -> Any:
    """mteb; its import makes a cache folder of its own, here below ours unless $MTEB_CACHE names another."""
    os.environ.setdefault("MTEB_CACHE", str(cache_dir() / "mteb"))
    try:
        import mteb
    except OSError as error:
        raise UserError(f"mteb cannot make its cache folder: {error}. Set {ENV_CACHE}.") from error
    return mteb


class MtebEncoder:
    """mteb's model with ``encode(sentences)``; what ``own.describe`` looks at are its attributes."""

    def __init__(self, name: str, device: str = "auto", trust_code: bool = False):
        """Load a model of mteb's registry.

        Raises:
            UserError: a name that it does not have, no encoder of text as one vector, code that was not trusted,
                whatever its loader raises.
        """
        from simcse_bench.models.loading import torch_device

        mteb = import_mteb()
        meta = registry_entry(name)
        if meta.loader_kwargs.get("trust_remote_code") and not trust_code:
            raise UserError(
                f"{PREFIX}{meta.name}: runs Python code of its repository; read it, then give --trust-remote-code."
            )
        try:
            with hub_errors(f"{PREFIX}{meta.name}"), _silent():
                self.wrapper = meta.load_model(device=str(torch_device(device)))
                self.task = mteb.get_task(TASK).metadata
                prompt = sts_prompt(self.wrapper, self.task)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{PREFIX}{meta.name}: mteb cannot load it: {first_line(error)}") from error
        self.module = getattr(self.wrapper, "model", None)
        self.max_seq_length = getattr(self.module, "max_seq_length", None) or _whole(meta.max_tokens)
        self.provenance = {
            "name": PREFIX + str(meta.name),
            "revision": meta.revision,
            "settings_from": f"mteb's registry, task {TASK}",
            "library": "mteb",
            "encoded_by": f"mteb {mteb.__version__}",
        } | ({"template": prompt + SLOT} if prompt else {})
        trained_on = [{"name": n} for n in sorted(meta.training_datasets or ()) if same_name(n) in builtin_names()]
        self.provenance |= {"trained_on": trained_on} if trained_on else {}

    def encode(self, sentences: Sequence[str]) -> Any:
        """What mteb's model returns for them, as sentences of ``TASK``."""
        from datasets import Dataset
        from torch.utils.data import DataLoader

        texts: Any = Dataset.from_dict({"text": list(sentences)})
        with _silent():
            return self.wrapper.encode(
                DataLoader(texts, batch_size=_BATCH), task_metadata=self.task, hf_split="test", hf_subset="default",
                batch_size=_BATCH, show_progress_bar=False,
            )  # fmt: skip


def registry_entry(name: str) -> Any:
    """mteb's ``ModelMeta``, by its present or a former name.

    Raises:
        UserError: none of that name, or one that does not give one vector for a text.
    """
    import_mteb()
    from mteb.models.get_model_meta import get_model_meta
    from mteb.models.model_implementations import MODEL_REGISTRY

    asked = name.removeprefix(PREFIX)
    try:
        with _silent():
            meta = get_model_meta(asked)
    except KeyError:
        near = suggestion(asked, MODEL_REGISTRY)
        raise UserError(
            f"{PREFIX}{asked}: mteb's registry has no model {asked!r}{near} For a model of the Hub or a folder give "
            "its name without mteb:."
        ) from None
    if "text" not in meta.modalities or "dense" not in meta.model_type or meta.loader is None:
        what = f"{', '.join(meta.model_type)} of {', '.join(meta.modalities)}" if meta.loader else "no code to load it"
        raise UserError(f"{PREFIX}{asked}: mteb has {what}; expected a dense encoder of text.")
    return meta


def sts_prompt(wrapper: Any, task: Any) -> str:
    """What mteb's model puts before a sentence of a task; empty where it puts, or says, nothing."""
    prompts = getattr(wrapper, "model_prompts", None)
    if prompts:
        return str(prompts.get(wrapper.get_prompt_name(task, None)) or "")
    if any(getattr(wrapper, name, None) for name in _INSTRUCTED):
        return str(wrapper.get_task_instruction(task, None) or "")
    return ""


def _whole(number: Any) -> int | None:
    return int(number) if isinstance(number, int | float) and math.isfinite(number) else None


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without the bars and notes of mteb and of its models' code, which no option turns off."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
