"""A model as one ONNX graph: token ids and mask in, sentence embeddings out."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from simcse_bench.errors import UserError, first_line
from simcse_bench.export.parity import quiet
from simcse_bench.models.encoders import pool
from simcse_bench.models.saving import Parts, write_config

_ONE_FILE = 1_800_000_000  # bytes of weights; protobuf ends at 2 GiB, above it they lie in a file of their own


class _Graph(nn.Module):
    def __init__(self, parts: Parts):
        super().__init__()
        self.encoder, self.head = parts.encoder, parts.dense
        self.pooling, self.normalize = parts.pooling, parts.normalize

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L), (B, L) -> (B, d)."""
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
        vectors = pool(output.hidden_states, attention_mask, self.pooling)
        if self.head is not None:
            vectors = self.head(vectors)
        return nn.functional.normalize(vectors, dim=-1) if self.normalize else vectors


def write_onnx(parts: Parts, folder: Path) -> None:
    """model.onnx, the tokenizer's files and config.json (which AutoTokenizer reads) in an empty folder.

    Inputs ``input_ids`` and ``attention_mask``, int64 (batch, length); output ``sentence_embedding``, float32.

    Raises:
        UserError: torch cannot translate this architecture.
    """
    ids = torch.full((2, 8), parts.tokenizer.unk_token_id or 1)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    axes = {0: "batch", 1: "length"}
    size = sum(p.numel() * p.element_size() for p in parts.encoder.parameters())
    try:
        with quiet(), torch.inference_mode():
            torch.onnx.export(
                _Graph(parts).eval(), (ids, mask), folder / "model.onnx",
                input_names=["input_ids", "attention_mask"], output_names=["sentence_embedding"],
                dynamic_shapes={"input_ids": axes, "attention_mask": axes},
                dynamo=True, external_data=size > _ONE_FILE, verbose=False,
            )  # fmt: skip
    except torch.onnx.errors.OnnxExporterError as error:
        reason = first_line(error)
        raise UserError(
            f"--to onnx: torch cannot translate {type(parts.encoder).__name__}: {reason} Use another --to."
        ) from error
    parts.tokenizer.save_pretrained(folder)
    write_config(parts.encoder, folder)
