"""The README.md of an export: real scores from saved reports, training, geometry, how to use it."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simcse_bench import bundled
from simcse_bench.data.corpus import NAMED
from simcse_bench.data.registry import load_suites, task_names
from simcse_bench.data.senteval import REPO
from simcse_bench.errors import UserError
from simcse_bench.export.run import Export, TrainedRun
from simcse_bench.models.catalog import PREPROCESSES
from simcse_bench.models.identity import DIRECTION, deciding, shown_files, shown_model, shown_origin
from simcse_bench.reports import geometry
from simcse_bench.reports.page import TEMPLATES
from simcse_bench.reports.report import Report
from simcse_bench.reports.scores import score_table
from simcse_bench.reports.table import Table, to_markdown

_LIBRARIES = {"onnx": ("onnx", "sentence-similarity"), "transformers": ("transformers", "feature-extraction")}
_SHOWN = ("batch_size", "learning_rate", "temperature", "max_length", "pooling", "mlp", "seed", "dtype", "objective",
          "augmentation", "mlm_weight", "hard_negative_weight")  # fmt: skip


@dataclass(frozen=True)
class About:
    """What only the user knows."""

    name: str
    repo: str | None = None  # on the Hub, where it will be published
    license: str | None = None
    languages: Sequence[str] = ()
    base_model: str | None = None
    tags: Sequence[str] = ()

    def check(self) -> About:
        """UserError for what the Hub would refuse."""
        problems = [
            f"--language {code!r}: expected an ISO 639 code of two or three letters, such as en, or multilingual."
            for code in self.languages
            if code != "multilingual" and not re.fullmatch("[a-z]{2,3}", code)
        ]
        if self.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.\-]*", self.license):
            problems.append(
                f"--license {self.license!r}: expected one of the Hub's identifiers, such as mit, apache-2.0 or other."
            )
        if self.base_model is not None and not re.fullmatch(r"[\w.\-]+(/[\w.\-]+)?", self.base_model):
            problems.append(f"--base-model {self.base_model!r}: expected the id of a model on the Hub (owner/name).")
        if problems:
            raise UserError(*problems)
        return self


@dataclass(frozen=True)
class Measured:
    """What was measured of one model: reports and analyses with its fingerprints."""

    reports: Sequence[Report] = ()
    analyses: Sequence[geometry.Analysis] = ()


def read_measured(results: Path, model: Mapping[str, Any]) -> Measured:
    """The reports and analyses below a folder whose model has the same files and settings, in float32.

    Left out: reports of the first pairs only, and files that are no reports.
    """
    reports: dict[str, Report] = {}
    for path in sorted(results.rglob("*.json")) if results.is_dir() else ():
        try:
            report = Report.load(path)
        except UserError:  # an ablation, a benchmark, a damaged file: `simcse-bench report` tells of these
            continue
        if report.limit is None and _same(report.model, model):
            reports[report.key] = report  # the same evaluation may be there under two names
    analyses = [a for a in geometry.read_analyses(results / "analysis")[0] if _same(a["model"], model)]
    known = list(load_suites())

    def place(report: Report) -> tuple[int, str, str]:
        return known.index(report.suite) if report.suite in known else len(known), report.suite, report.key

    return Measured(sorted(reports.values(), key=place), analyses)


def _same(other: Mapping[str, Any], model: Mapping[str, Any]) -> bool:
    plain = other.get("dtype", "float32") == "float32" and not other.get("whiten")
    fields = (*DIRECTION, "normalize")
    return plain and deciding(other, fields) == deciding(model, fields)


def model_card(export: Export, about: About, scores: Measured) -> str:
    """The whole README.md."""
    from huggingface_hub import ModelCard

    data = _metadata(export, about, scores.reports)
    card = ModelCard.from_template(
        data,
        str(TEMPLATES / "model_card.md"),
        name=about.name,
        summary=_summary(export),
        notes=_notes(export),
        uses=uses(export, about.repo),
        tables=[to_markdown(_named(score_table(r, "spearman", "all"), about.name)) for r in scores.reports],
        geometry=_geometry(scores.analyses, about.name),
        training=_training(export.record) if export.record else None,
        settings=json.dumps(export.record["config"], indent=1, ensure_ascii=False) if export.record else "",
        facts=_facts(export),
    )
    return str(card).rstrip() + "\n"


def _metadata(export: Export, about: About, reports: Sequence[Report]) -> Any:
    from huggingface_hub import ModelCardData

    library, pipeline = _LIBRARIES.get(export.form, ("sentence-transformers", "sentence-similarity"))
    tags = ["sentence-transformers"] * (export.form != "onnx")
    tags += ["feature-extraction", "sentence-similarity", "simcse", "simcse-bench", *about.tags]
    results = [result for report in reports for result in _results(report)]
    return ModelCardData(
        language=list(about.languages) or None,
        license=about.license,
        library_name=library,
        pipeline_tag=pipeline,
        tags=tags,
        base_model=about.base_model or _base_model(export),
        datasets=_datasets(export.record),
        model_name=about.name if results else None,
        eval_results=results or None,
    )


def _results(report: Report) -> list[Any]:
    """One entry per task and metric, as they stand in the report; its average where it is one of several tasks."""
    from huggingface_hub import EvalResult

    protocol = report.protocol
    results = []
    official = {n for n in report.tasks if n in task_names() and n not in bundled.TASKS}
    if official == set(report.tasks):
        official.add("average")
    tasks: dict[str, Any] = {**report.tasks}
    if report.average and len(report.tasks) > 1:
        alike: dict[str, Any] = {"probe": {}} if all("probe" in task for task in tasks.values()) else {}
        tasks["average"] = alike | {"title": f"{report.suite}, average", "scores": report.average, "data": None}
    for name, task in tasks.items():
        sts, trained = "spearman" in task["scores"], "probe" in task
        split = (task["data"] or protocol)["split"]
        identity = {"protocol": protocol["name"]} | ({"probe": protocol["probe"]} if trained else {})
        identity |= {"text": task["data"]["text"], "fingerprint": task["data"]["fingerprint"]} if task["data"] else {}
        for metric in ("spearman", "pearson") if sts else task["scores"]:
            entry = task["scores"][metric]["all"]
            kind = f"{metric}_cosine" if sts else metric
            results.append(
                EvalResult(
                    task_type="text-classification" if trained else "semantic-similarity",
                    task_name="Text Classification" if trained else "Semantic Similarity",
                    dataset_type=REPO if name in official else "unknown",
                    dataset_name=f"{task['title']} ({protocol['name']})",
                    dataset_config=name,
                    dataset_split=split,
                    dataset_args=identity,
                    metric_type=kind,
                    metric_name=f"{metric.capitalize()} ×100" + (" of the cosines" if sts else ""),
                    metric_value=round(entry["value"], 4),
                    metric_args={"interval_95": entry["interval"]} if entry["interval"] else None,
                )
            )
    return results


def _named(table: Table, name: str) -> Table:
    """A table whose first row, the model's, has the published name."""
    first, *others = table.rows
    return dataclasses.replace(table, rows=[[name, *first[1:]], *others])


def _base_model(export: Export) -> str | None:
    """The Hub id that the training started from or the export came from; None where it is not from the Hub."""
    start = export.record["model"] if export.record else export.checkpoint.provenance()
    return str(start["name"]) if start.get("revision") else None


def _datasets(record: TrainedRun | None) -> list[str] | None:
    """The Hub dataset of the training text, where it came from the Hub."""
    if record is None or not record["data"]["origin"].startswith("Hub dataset"):
        return None
    name = record["data"]["name"].partition("@")[0]  # without its revision
    return [REPO if name in NAMED else name.partition(":")[0]]


def _summary(export: Export) -> str:
    how = f"pooling `{export.checkpoint.spec.pooling}`" + ", dense head" * (export.checkpoint.spec.head == "mlp")
    how += ", normalised" * export.checkpoint.normalize
    made = "trained with SimCSE by simcse-bench" if export.record else f"exported from {export.checkpoint.name}"
    return (
        f"Sentence embeddings with {export.dimension} dimensions ({how}; at most {export.max_length} tokens), {made}."
    )


def _notes(export: Export) -> list[str]:
    notes = []
    preprocess = export.checkpoint.spec.preprocess
    if preprocess == "pyvi":
        notes.append("Sentences must be segmented first: `pyvi.ViTokenizer.tokenize(sentence)`.")
    elif preprocess is not None:
        notes.append(f"Done to every sentence first: {PREPROCESSES[preprocess]}.")
    if export.checkpoint.embedded:
        notes.append(f"Trained from the {bundled.ENCODER}.")
    return notes


def _geometry(analyses: Sequence[geometry.Analysis], name: str) -> str:
    return to_markdown(_named(geometry.geometry_table(analyses[:1]), name)) if analyses else ""


def _training(record: TrainedRun) -> dict[str, str]:
    config, data, kept = record["config"], record["data"], record["kept"]
    facts = {
        "start": shown_model(record["model"]),
        "text": f"{data['name']} ({data['origin']}), {data['rows']} rows of {data['columns']} "
        f"(1: sentences, 2: pairs, 3: triplets), fingerprint {data['fingerprint']}",
        "updates": f"{record['steps']} ({record['epochs']} epochs)",
    }
    facts |= {name: str(config[name]) for name in _SHOWN if config.get(name) not in (None, "")}
    facts["dropout"] = ", ".join(f"{k} {v}" for k, v in record["dropout"].items())
    dev = record.get("dev")
    if dev and kept["dev"] is not None:
        facts["kept"] = f"weights of update {kept['step']}: {dev['metric']} {kept['dev']:.2f} on {dev['task']} "
        facts["kept"] += f"{dev['split']} (selects the weights; not comparable with test scores)"
    machine = record["environment"]
    facts["machine"] = f"{machine.get('gpu', machine['processor'])}, {machine['processes']} process(es), "
    facts["machine"] += f"{record['seconds']:.0f} s; torch {machine['versions']['torch']}"
    return facts


def _facts(export: Export) -> dict[str, str]:
    model, parity = export.checkpoint.provenance(), export.parity
    return {
        "source": shown_model(model),
        "pooling, head": shown_origin(model),
        "max length": f"{export.max_length} tokens",
        "weights": shown_files(model),
        "parity": f"the {export.form} form differs from simcse-bench's embeddings by at most "
        f"{parity['difference']:.1e} (largest value {parity['largest_value']:.3g}, {parity['sentences']} sentences)",
    }


_SENTENCES = 'sentences = ["A man is playing a guitar.", "Someone plays the guitar."]'
_MASK = 'mask = batch["attention_mask"].unsqueeze(-1)'
_MEAN = "embeddings = (tokens * mask).sum(1) / mask.sum(1)"
_POOLED = {  # pooling -> lines that give `embeddings` from `output` and `batch`
    "cls": ("embeddings = output.last_hidden_state[:, 0]",),
    "mean": ("tokens = output.last_hidden_state", _MASK, _MEAN),
    "first_last": ("tokens = (output.hidden_states[1] + output.hidden_states[-1]) / 2", _MASK, _MEAN),
    "embedding_last": ("tokens = (output.hidden_states[0] + output.hidden_states[-1]) / 2", _MASK, _MEAN),
    "top2": ("tokens = (output.hidden_states[-2] + output.hidden_states[-1]) / 2", _MASK, _MEAN),
    "max": (_MASK, "embeddings = output.last_hidden_state.masked_fill(mask == 0, -torch.inf).amax(1)"),
    "mean_sqrt_len": (_MASK, "embeddings = (output.last_hidden_state * mask).sum(1) / mask.sum(1).sqrt()"),
    "weighted_mean": (
        'mask = batch["attention_mask"].cumsum(1).mul(batch["attention_mask"]).unsqueeze(-1)',
        "embeddings = (output.last_hidden_state * mask).sum(1) / mask.sum(1)",
    ),
    "last_token": (
        'ends = batch["attention_mask"].sum(1) - 1  # padded on the right',
        "embeddings = output.last_hidden_state[torch.arange(len(ends)), ends]",
    ),
}


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
    ways = [Use("sentence-transformers", _sentence_transformers(place))]
    known = export.checkpoint.spec.pooling in _POOLED and not export.checkpoint.prompt.provenance()
    if known and (export.checkpoint.spec.head == "none" or export.pooler):
        own = Use("transformers", _transformers(export, place))
        ways = [own, *ways] if export.form == "transformers" else [*ways, own]
    return [*ways, Use("simcse-bench", f"simcse-bench eval --model {place}", "bash")]


def _sentence_transformers(place: str) -> str:
    return "\n".join([
        "from sentence_transformers import SentenceTransformer", "",
        f'model = SentenceTransformer("{place}")', _SENTENCES, "embeddings = model.encode(sentences)",
        "print(model.similarity(embeddings, embeddings))",
    ])  # fmt: skip


def _transformers(export: Export, place: str) -> str:
    pooling = str(export.checkpoint.spec.pooling)
    layers = ", output_hidden_states=True" if "hidden_states[" in "".join(_POOLED[pooling]) else ""
    lines = ["embeddings = output.pooler_output"] if export.pooler else list(_POOLED[pooling])
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
