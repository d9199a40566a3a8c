"""How an export is used, as code that runs: for its README.md."""

from __future__ import annotations

from dataclasses import dataclass

from simcse_bench.exporting import Export

_SENTENCES = 'sentences = ["A man is playing a guitar.", "Someone plays the guitar."]'
_POOLED = {  # pooling -> lines that give `embeddings` from `output` and `batch`
    "cls": "embeddings = output.last_hidden_state[:, 0]",
    "mean": "tokens = output.last_hidden_state",
    "first_last": "tokens = (output.hidden_states[1] + output.hidden_states[-1]) / 2",
    "embedding_last": "tokens = (output.hidden_states[0] + output.hidden_states[-1]) / 2",
    "top2": "tokens = (output.hidden_states[-2] + output.hidden_states[-1]) / 2",
}
_MEAN = """mask = batch["attention_mask"].unsqueeze(-1)
embeddings = (tokens * mask).sum(1) / mask.sum(1)"""


@dataclass(frozen=True)
class Use:
    """One way to use it."""

    title: str
    code: str
    language: str = "python"


def uses(export: Export, repo: str | None) -> list[Use]:
    """Every way that gives the same embeddings; ``repo``: its id on the Hub, else "path/to/model" stands for it."""
    place = repo or "path/to/model"
    if export.form == "onnx":
        return [Use("onnxruntime", _onnx(place, repo is not None))]
    found = [Use("sentence-transformers", _sentence_transformers(place))]
    if export.checkpoint.spec.head == "none" or export.pooler:
        own = Use("transformers", _transformers(export, place))
        found = [own, *found] if export.form == "transformers" else [*found, own]
    return [*found, Use("simcse-bench", f"simcse-bench eval --model {place}", "bash")]


def _sentence_transformers(place: str) -> str:
    return "\n".join([
        "from sentence_transformers import SentenceTransformer", "",
        f'model = SentenceTransformer("{place}")', _SENTENCES, "embeddings = model.encode(sentences)",
        "print(model.similarity(embeddings, embeddings))",
    ])  # fmt: skip


def _transformers(export: Export, place: str) -> str:
    pooling = str(export.checkpoint.spec.pooling)
    layers = ", output_hidden_states=True" if "hidden_states[" in _POOLED[pooling] else ""
    if export.pooler:
        lines = ["embeddings = output.pooler_output"]
    else:
        lines = [_POOLED[pooling]] + ([_MEAN] if pooling != "cls" else [])
    if export.checkpoint.normalize:
        lines.append("embeddings = torch.nn.functional.normalize(embeddings, dim=-1)")
    return "\n".join([
        "import torch", "from transformers import AutoModel, AutoTokenizer", "",
        f'tokenizer = AutoTokenizer.from_pretrained("{place}")',
        f'model = AutoModel.from_pretrained("{place}").eval()', _SENTENCES,
        'batch = tokenizer(sentences, padding=True, truncation=True, return_tensors="pt")',
        "with torch.inference_mode():", f"    output = model(**batch{layers})", *lines,
        "print(torch.nn.functional.cosine_similarity(embeddings[0], embeddings[1], dim=0))",
    ])  # fmt: skip


def _onnx(place: str, on_hub: bool) -> str:
    folder = f'snapshot_download("{place}")' if on_hub else f'"{place}"'
    return "\n".join([
        *["from huggingface_hub import snapshot_download"] * on_hub, "import onnxruntime",
        "from transformers import AutoTokenizer", "",
        f"folder = {folder}", "tokenizer = AutoTokenizer.from_pretrained(folder)",
        'session = onnxruntime.InferenceSession(f"{folder}/model.onnx")', _SENTENCES,
        'batch = tokenizer(sentences, padding=True, truncation=True, return_tensors="np")',
        'inputs = {name: batch[name].astype("int64") for name in ("input_ids", "attention_mask")}',
        'embeddings = session.run(["sentence_embedding"], inputs)[0]',
        "print(embeddings.shape)",
    ])  # fmt: skip
