"""Networks as JSON: the class by its import path and the arguments it was made with, and back."""

from __future__ import annotations

import importlib
import inspect
import json
from typing import Any

import numpy as np
from torch import nn

from contrast3d.errors import ConfigError


class Rebuildable(nn.Module):
    """A module that remembers the arguments of its constructor as `kwargs`, defaults included.

    Derive your own encoder from it, or give it an attribute `kwargs`, and a run folder can rebuild it. `kwargs` is None
    where keywords alone do not tell what was given: for values taken by `*args`.
    """

    kwargs: dict[str, Any] | None

    def __new__(cls, *args: Any, **kwargs: Any):
        module = super().__new__(cls)
        if args or kwargs or not _requires_arguments(cls):  # a copy is made without them and gets its state later
            object.__setattr__(module, "kwargs", _as_keywords(cls, args, kwargs))
        return module


def _as_keywords(cls: type, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any] | None:
    """Keywords that are the same as these arguments, defaults included; None where values went to `*args`."""
    bound = inspect.signature(cls).bind(*args, **kwargs)
    bound.apply_defaults()
    given: dict[str, Any] = {}
    for name, parameter in bound.signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            given |= bound.arguments[name]
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            given[name] = bound.arguments[name]
        elif bound.arguments[name]:
            return None
    return given


def _requires_arguments(cls: type) -> bool:
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(cls).parameters.values()
    return any(p.default is p.empty and p.kind not in variadic for p in parameters)


def describe(module: nn.Module) -> dict[str, Any]:
    """{"class": "package.module:Class", "kwargs": {...}}, modules among the arguments likewise.

    kwargs is None where they are unknown or no JSON.
    """
    kwargs = getattr(module, "kwargs", None)
    try:
        kwargs = json.loads(json.dumps(kwargs, default=_described))
    except (TypeError, ValueError):  # arrays among them, say
        kwargs = None
    return {"class": f"{type(module).__module__}:{type(module).__qualname__}", "kwargs": kwargs}


def _described(value: Any) -> Any:
    if isinstance(value, nn.Module):
        return describe(value)
    if isinstance(value, np.generic):  # one number of an array
        return value.item()
    raise TypeError(f"{type(value).__name__} is no JSON")


def rebuild(described: dict[str, Any]) -> nn.Module:
    """The module that `describe` described, with fresh weights; a ConfigError says what is missing."""
    name, kwargs = described["class"], described["kwargs"]
    advice = "Try: load_run(folder, encoder=yours), an encoder built as it was"
    if kwargs is None:
        raise ConfigError(f"{name} cannot be rebuilt: its constructor's arguments were not recorded. {advice}")
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{name} cannot be rebuilt: {error}. {advice}") from None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ConfigError(f"{name} is not a network. {advice}")
    try:
        return found(**{key: _argument(value) for key, value in kwargs.items()})
    except TypeError as error:
        raise ConfigError(f"{name} cannot be rebuilt: {error}. {advice}") from None


def _argument(value: Any) -> Any:
    """What `describe` wrote as the constructor took it: networks, and tuples, which JSON does not know."""
    if isinstance(value, dict) and set(value) == {"class", "kwargs"}:
        return rebuild(value)
    return tuple(map(_argument, value)) if isinstance(value, list) else value
