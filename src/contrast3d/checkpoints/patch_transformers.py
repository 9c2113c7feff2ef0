"""Released weights of Point-MAE (Pang et al., ECCV 2022), ReCon (Qi et al., ICML 2023), ACT (Dong et al., ICLR 2023).

Their files hold the encoder's tensors under "MAE_encoder." or "ACT_encoder." where it was pre-trained and under no name
where it was fine-tuned, all of it sometimes below "module." or "base_model.".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from contrast3d.checkpoints.importers import Loaded, State, assign, read_checkpoint
from contrast3d.errors import ConfigError, DataError
from contrast3d.nn.patch_transformer import PatchTransformer

OUTER = ("module.", "base_model.")
ENCODERS = ("MAE_encoder.", "ACT_encoder.")
QUERIES = ("cls", "img", "text")
ENCODER = "encoder."  # what stands before names of the encoder, in the names that `from_released` gives
HEAD = "head."
NO_PART, TEACHER, OTHER_DECODER = "no part of this network", "a teacher's", "of ACT, whose decoder predicts features"

_EMBED = {"first_conv.0": "conv1", "first_conv.1": "norm1", "first_conv.3": "conv2",
          "second_conv.0": "conv3", "second_conv.1": "norm2", "second_conv.3": "conv4"}
_LEAF = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
_INNER = {"norm1": "norm1", "norm2": "norm2", "attn.qkv": "attn.qkv", "attn.proj": "attn.proj", "mlp.fc1": "mlp.fc1",
          "mlp.fc2": "mlp.fc2"}
_INNER_QUERIES = {"norm1_contrast": "norm1", "norm2_contrast": "norm2", "attn_contrast.q": "attn.q",
                  "attn_contrast.kv": "attn.kv", "attn_contrast.proj": "attn.proj", "mlp_contrast.fc1": "mlp.fc1",
                  "mlp_contrast.fc2": "mlp.fc2"}
_CONVOLUTIONS = re.compile(r"(encoder\.embed\.conv[1-4]|decoder\.head)\.weight")  # of one point each: linear layers


def _renamed() -> dict[str, str]:
    """Parts that a tensor's last word follows: the released name and ours, of a block with "0" for its number."""
    parts = {f"encoder.{theirs}": f"encoder.embed.{ours}" for theirs, ours in _EMBED.items()}
    parts |= {f"pos_embed.{i}": f"encoder.position.{i}" for i in (0, 2)} | {"norm": "encoder.norm"}
    parts |= {f"blocks.blocks.0.{theirs}": f"encoder.blocks.0.local.{ours}" for theirs, ours in _INNER.items()}
    parts |= {f"blocks.blocks.0.{k}": f"encoder.blocks.0.queries.{ours}" for k, ours in _INNER_QUERIES.items()}
    parts |= {f"MAE_decoder.blocks.0.{theirs}": f"decoder.blocks.0.local.{ours}" for theirs, ours in _INNER.items()}
    parts |= {f"decoder_pos_embed.{i}": f"decoder.position.{i}" for i in (0, 2)}
    parts |= {"MAE_decoder.norm": "decoder.norm", "increase_dim.0": "decoder.head"}
    parts |= {f"{q}_proj": f"encoder.projections.{q}" for q in QUERIES[1:]}
    parts |= {f"cls_proj.{i}": f"projector.{i}" for i in (0, 1, 3, 4)}  # of the single-modal loss
    return parts | {f"cls_head_finetune.{i}": f"{HEAD}{i}" for i in (0, 1, 4, 5, 8)}


_PARTS = _renamed()
_PARTS_BACK = {ours: theirs for theirs, ours in _PARTS.items()}
_VECTORS = {f"{q}_token": f"encoder.tokens.{q}" for q in QUERIES} | {"mask_token": "decoder.mask_token"}
_VECTORS |= {f"{q}_pos": f"encoder.token_positions.{q}" for q in QUERIES}
_VECTORS_BACK = {ours: theirs for theirs, ours in _VECTORS.items()}
_NUMBER = re.compile(r"(?<=blocks\.)\d+(?=\.)")


def _translated(name: str, parts: Mapping[str, str], vectors: Mapping[str, str]) -> str | None:
    if name in vectors:
        return vectors[name]
    numbers = _NUMBER.findall(name)
    part, _, leaf = _NUMBER.sub("0", name).rpartition(".")
    if part not in parts or not re.fullmatch(_LEAF, leaf) or len(numbers) > 1:
        return None
    made = parts[part]
    return f"{_NUMBER.sub(numbers[0], made) if numbers else made}.{leaf}"


def from_released(name: str) -> str | None:
    """Our name of a released tensor in a method ("encoder.blocks.0.local.norm1.weight"); None where there is none."""
    return _translated(_stripped(name), _PARTS, _VECTORS)


def to_released(name: str) -> str | None:
    """The released name, without a prefix, of a tensor of a method (see `from_released`); None where there is none."""
    return _translated(name, _PARTS_BACK, _VECTORS_BACK)


def _stripped(name: str) -> str:
    while name.startswith(OUTER):
        name = name.partition(".")[2]
    return name.partition(".")[2] if name.startswith(ENCODERS) else name


def load_released(model: nn.Module, source: Path | str | State, *, partial: bool = False) -> Loaded:
    """Fill a `nn.PatchTransformer`, or a method or classifier around one, with released weights: all that fit, or none.

    source: a checkpoint file, or its tensors by name. What the model has no place for (a decoder, teachers) is skipped;
    so is a classifier's head that is not exactly the model's, since each task has its own. Of ACT the encoder alone is
    read: it was pre-trained for other targets.

    Raises DataError for a network of another width, depth or block, unless `partial`, and for a file without one.
    """
    where, state = _opened(source)
    prefix = _encoder_prefix(model)
    found, skipped = _named(state, where)
    own = {_shared_name(name, prefix): name for name in model.state_dict()}
    if _heads(found) != _heads({name: (name, model.state_dict()[mine]) for name, mine in own.items()}):
        for name in _heads(found):
            skipped[found.pop(name)[0]] = "another head than the model's"
    if not partial:
        _check_same_network(where, state, found, own, model)
    return assign(model, {own.get(name, name): value for name, value in found.items()}, where=where, partial=partial,
                  skipped=skipped)


def _heads(named: Mapping[str, tuple[str, Tensor]]) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of a classifier's head."""
    return {name: tuple(tensor.shape) for name, (_, tensor) in named.items() if name.startswith(HEAD)}


def _opened(source: Path | str | State) -> tuple[str, State]:
    return ("state", source) if isinstance(source, Mapping) else (str(source), read_checkpoint(source)[0])


def _encoder_prefix(model: nn.Module) -> str:
    """What stands before the names of the model's one patch transformer."""
    prefixes = [f"{name}." if name else "" for name, m in model.named_modules() if isinstance(m, PatchTransformer)]
    if len(prefixes) != 1:
        raise ConfigError(f"{type(model).__name__} has {len(prefixes)} PatchTransformers; expected one")
    return prefixes[0]


def _shared_name(name: str, prefix: str) -> str:
    """A tensor's name in a model -> in a method, where the encoder's begin with "encoder."."""
    if name.startswith(prefix):
        return ENCODER + name.removeprefix(prefix)
    return f"{HEAD}0.{name.removeprefix(HEAD)}" if name in (f"{HEAD}weight", f"{HEAD}bias") else name  # a linear head


def _named(state: State, where: str) -> tuple[dict[str, tuple[str, Tensor]], dict[str, str]]:
    """Tensors by our names, each with its released one and in our layout; and what has no place, with the reason."""
    found: dict[str, tuple[str, Tensor]] = {}
    skipped: dict[str, str] = {}
    act = any("ACT_encoder." in name for name in state)
    for theirs, tensor in state.items():
        name = from_released(theirs)
        if name is None:
            teacher = _stripped(theirs).startswith(("img_encoder.", "text_encoder.", "dvae."))
            skipped[theirs] = TEACHER if teacher else NO_PART
        elif act and not name.startswith(ENCODER):
            skipped[theirs] = OTHER_DECODER
        elif name in found:
            raise DataError(where, f"two networks: {found[name][0]} and {theirs}", "one of them")
        else:
            found[name] = (theirs, _our_layout(name, tensor))
    if any(_stripped(name).startswith("reduce_dim.") for name in state):
        raise DataError(where, "a layer between patches and transformer (reduce_dim)", "a transformer as wide as its "
                        "patches' embedding, as those of Point-MAE, ReCon and ACT are")
    return found, skipped


def _our_layout(name: str, tensor: Tensor) -> Tensor:
    """Convolutions of one point come as (out, in, 1), tokens and their positions as (1, 1, C)."""
    if _CONVOLUTIONS.fullmatch(name) and tensor.ndim == 3 and tensor.shape[2] == 1:
        return tensor[..., 0]
    if name in _VECTORS_BACK and tensor.ndim == 3 and tensor.shape[:2] == (1, 1):
        return tensor[0] if "positions" in name else tensor[0, 0]
    return tensor


def config_of(state: State, where: str = "state") -> dict[str, Any]:
    """The arguments of the `nn.PatchTransformer` that released tensors belong to.

    num_heads is taken to be of 64 channels each, and patch_size 32 where there is no decoder's head to tell it. The
    readout is what fine-tuning takes: every query and the max over tokens; without queries, the max and the mean.
    """
    found, _ = _named(state, where)
    shapes = {name: tuple(tensor.shape) for name, (_, tensor) in found.items()}
    numbers = {int(match[1]) for name in shapes if (match := re.match(r"encoder\.blocks\.(\d+)\.local\.", name))}
    if "encoder.norm.weight" not in shapes or not numbers:
        raise DataError(where, "no encoder of Point-MAE, ReCon or ACT", "names such as MAE_encoder.blocks.blocks.0."
                        "norm1.weight, or the same without MAE_encoder.")
    (width,) = shapes["encoder.norm.weight"]
    streams = any(".queries." in name for name in shapes)
    queries = tuple(q for q in QUERIES if f"encoder.tokens.{q}" in shapes)
    projections = {q: shapes[f"encoder.projections.{q}.weight"][0] for q in queries
                   if f"encoder.projections.{q}.weight" in shapes}
    return {"width": width, "depth": max(numbers) + 1, "num_heads": max(1, width // 64),
            "patch_size": shapes.get("decoder.head.bias", (96,))[0] // 3, "queries": queries,
            "block": "two-stream" if streams else "standard", "projections": projections,
            "readout": ("queries", "max") if queries else ("max+mean",), "skip_origin": True}


def _check_same_network(
    where: str, state: State, found: Mapping[str, tuple[str, Tensor]], own: Mapping[str, str], model: nn.Module
) -> None:
    """A DataError that says what to build, where the file's network is not the model's."""
    theirs, tensors = config_of(state, where), model.state_dict()
    encoder = next(m for m in model.modules() if isinstance(m, PatchTransformer))
    told = ", ".join(f"{k}={theirs[k]!r}" for k in ("width", "depth", "num_heads", "queries", "block", "projections"))
    build = f"PatchTransformer({told}), or load_patch_transformer, which builds it"
    for what, mine in (("depth", len(encoder.blocks)), ("block", encoder.block)):
        if theirs[what] != mine:
            raise DataError(where, f"{what} {theirs[what]}", f"the network's {what} {mine}", build)
    for name, (released, tensor) in found.items():
        if name in own and tensor.shape != tensors[own[name]].shape:
            fix = f"patch_size={theirs['patch_size']}" if name.startswith("decoder.head.") else build
            raise DataError(f"{where}: {released}", f"shape {tuple(tensor.shape)}, the network's {own[name]} has "
                            f"{tuple(tensors[own[name]].shape)}", "a network of the same width and projections", fix)
    deep, mine = _decoder_depth(found), _decoder_depth(own)
    if deep and mine and deep != mine:
        raise DataError(where, f"a decoder of depth {deep}", f"the network's depth {mine}", f"decoder_depth={deep}")


def _decoder_depth(names: Iterable[str]) -> int:
    return len({match[0] for name in names if (match := re.match(r"decoder\.blocks\.\d+\.", name))})


def load_patch_transformer(source: Path | str | State, **options: Any) -> tuple[PatchTransformer, Loaded]:
    """(encoder, what was loaded) of released weights of Point-MAE, ReCon or ACT; no configuration is needed.

    options: of `nn.PatchTransformer`, in the place of what `config_of` finds: num_patches=128 for 2,048 points, say.
    Patches are sampled as the released kernels do, near the origin too, unless skip_origin=False.
    """
    where, state = _opened(source)
    encoder = PatchTransformer(**config_of(state, where) | options)
    return encoder, load_released(encoder, state)


def export_released(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a `nn.PatchTransformer`, or of a method or classifier around one, under the released names.

    `torch.save({"base_model": export_released(model)}, file)` is what the released code loads: to fine-tune (names
    begin with "MAE_encoder.") or, of a classifier, to test. Raises DataError for what has no place there.
    """
    prefix, exported = _encoder_prefix(model), {}
    tensors = {_shared_name(name, prefix): tensor for name, tensor in model.state_dict().items()}
    tuned = any(name.startswith(HEAD) for name in tensors)
    for name, tensor in tensors.items():
        theirs = to_released(name)
        if theirs is None:
            raise DataError(name, "no part of the released networks",
                            f"queries among {', '.join(QUERIES)}, and the heads of Point-MAE and ReCon")
        tensor = tensor.detach().cpu()
        if _CONVOLUTIONS.fullmatch(name):
            tensor = tensor[..., None]
        elif name in _VECTORS_BACK:
            tensor = tensor.reshape(1, 1, -1)
        inside = name.startswith(ENCODER) and "projections" not in name and not tuned
        exported[f"{ENCODERS[0]}{theirs}" if inside else theirs] = tensor.contiguous().clone()
    return exported
