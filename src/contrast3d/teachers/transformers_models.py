"""CLIP, SigLIP, DINOv2 and ViT from a folder of weights on disk, through transformers; nothing is ever downloaded."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from contrast3d.errors import DataError, MissingDataError
from contrast3d.teachers.contract import INSTALL, digest

EXPECTED = "a folder with config.json and model.safetensors, as save_pretrained writes it"
IMAGE_MODELS = {"clip": "CLIPModel", "siglip": "SiglipModel", "dinov2": "Dinov2Model", "vit": "ViTModel"}
USUAL = {  # mean and spread of the pictures that the released models saw; where the folder says nothing
    "clip": ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
    "dinov2": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
}
TEXT_MODELS = {"clip": "CLIPModel", "siglip": "SiglipModel"}


def read_config(folder: Path) -> dict:
    """config.json of a folder; MissingDataError or DataError say what is wrong with it."""
    path = folder / "config.json"
    if not path.is_file():
        found = "no such folder" if not folder.is_dir() else "no config.json in it"
        raise MissingDataError(str(folder), found, EXPECTED, "save the model there; nothing is downloaded")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        config["model_type"] = str(config["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(str(path), "no configuration of a model", EXPECTED) from None
    return config


def weights_of(folder: Path) -> Path:
    """The one file of weights in a folder: safetensors alone, which hold nothing to be run."""
    path = folder / "model.safetensors"
    if not path.is_file():
        others = ", ".join(sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pth", ".safetensors")))
        raise MissingDataError(str(folder), f"weights as {others}" if others else "no weights", "model.safetensors",
                               "save them there with save_pretrained(..., safe_serialization=True)")
    return path


def load_pretrained(kind: str, folder: Path):
    """An object of a class of transformers from a folder, for evaluation; from files that are there alone."""
    try:
        import transformers
    except ImportError:
        raise MissingDataError("transformers", "not installed", "the package that runs this teacher",
                               INSTALL) from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    safe = {} if "Tokenizer" in kind else {"use_safetensors": True}
    try:
        loaded = getattr(transformers, kind).from_pretrained(str(folder), local_files_only=True, **safe)
    except Exception as error:  # whatever a damaged folder makes of it
        raise DataError(str(folder), f"{kind}: {' '.join(str(error).split())[:160]}", EXPECTED) from None
    return loaded.eval().requires_grad_(False) if isinstance(loaded, torch.nn.Module) else loaded


def width_of(folder: Path, kind: str) -> int:
    """Features of the image or text teacher ("img", "text") in a folder, without its weights."""
    config = read_config(folder)
    family = _family(folder, config, kind)
    if family == "clip":
        return int(config.get("projection_dim", 512))
    if family == "siglip":
        part = config.get("text_config" if kind == "text" else "vision_config", {})
        return int(part.get("projection_size") or part.get("hidden_size", 768))
    return int(config["hidden_size"])


def _family(folder: Path, config: dict, kind: str) -> str:
    known = IMAGE_MODELS if kind == "img" else {**TEXT_MODELS, "bert": "BertModel"}
    if config["model_type"] not in known:
        raise DataError(str(folder), f"a model of type {config['model_type']!r}", f"one of {', '.join(known)}")
    return config["model_type"]


class TransformersImageTeacher:
    """The image tower of CLIP or SigLIP (after its projection), DINOv2's class token, or ViT's pooled one.

    Pictures are brought to the size, mean and spread that the model itself was trained with (preprocessor_config.json).
    """

    def __init__(self, folder: Path | str, device: torch.device | str = "cpu"):
        folder, self.device = Path(folder), torch.device(device)
        config = read_config(folder)
        self.name, self.dim = folder.resolve().name, width_of(folder, "img")
        self.family = _family(folder, config, "img")
        self.weights = digest(weights_of(folder))
        self.network = load_pretrained(IMAGE_MODELS[self.family], folder).to(self.device)
        self.size, self.mean, self.spread = _preprocessing(folder, config)

    @torch.inference_mode()
    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Pictures in 0 to 1 -> features."""
        x = images.to(self.device)
        if x.shape[-2:] != (self.size, self.size):
            x = interpolate(x, (self.size, self.size), mode="bicubic", align_corners=False, antialias=True)
        x = (x - self.mean.to(x)) / self.spread.to(x)
        if self.family in ("clip", "siglip"):
            return _tensor(self.network.get_image_features(pixel_values=x))
        return _tensor(self.network(pixel_values=x))


class TransformersTextTeacher:
    """The text tower of CLIP or SigLIP, after its projection."""

    def __init__(self, folder: Path | str, device: torch.device | str = "cpu"):
        folder, self.device = Path(folder), torch.device(device)
        config = read_config(folder)
        self.name, family, self.dim = folder.resolve().name, _family(folder, config, "text"), width_of(folder, "text")
        self.weights = digest(weights_of(folder))
        self.network = load_pretrained(TEXT_MODELS[family], folder).to(self.device)
        self.tokenizer = load_pretrained("AutoTokenizer", folder)
        self.padding = "max_length" if family == "siglip" else True  # as SigLIP was trained
        self.longest = int(config.get("text_config", {}).get("max_position_embeddings", 77 if family == "clip" else 64))

    @torch.inference_mode()
    def encode(self, texts: list[str]) -> Float[Tensor, "b d"]:
        """Sentences -> features."""
        out = torch.empty(len(texts), self.dim, device=self.device)
        for start in range(0, len(texts), 64):
            words = self.tokenizer(texts[start : start + 64], padding=self.padding, truncation=True,
                                   max_length=self.longest, return_tensors="pt").to(self.device)
            out[start : start + 64] = _tensor(self.network.get_text_features(**words))
        return out


def _tensor(output) -> Tensor:
    """What versions of transformers give either as a tensor or with it as `pooler_output`."""
    return (output if isinstance(output, Tensor) else output.pooler_output).float()


def _preprocessing(folder: Path, config: dict) -> tuple[int, Tensor, Tensor]:
    """(pixels, mean, spread) that the model wants."""
    try:
        own = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        own = {}
    vision = config.get("vision_config", config)
    size = own.get("crop_size") or own.get("size") or vision.get("image_size", 224)
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    usual = USUAL.get(config["model_type"], ([0.5] * 3, [0.5] * 3))
    mean, spread = own.get("image_mean") or usual[0], own.get("image_std") or usual[1]
    return int(size), torch.tensor(mean).view(3, 1, 1), torch.tensor(spread).view(3, 1, 1)
