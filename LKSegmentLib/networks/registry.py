"""The list of networks: build one by name, say what is known about it. Imports torch only when it must."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from LKSegmentLib.errors import InputError
from LKSegmentLib.networks.facts import NetworkFacts

if TYPE_CHECKING:
    from torch import nn

_HERE = "LKSegmentLib.networks"


@dataclass(frozen=True)
class Entry:
    """Where a network's class (or the function that builds it) and its facts are kept, and what it needs."""

    module: str
    class_name: str
    facts_module: str
    facts_name: str = "FACTS"
    packages: tuple[str, ...] = ()


_PUBLISHED = {
    "dnet": Entry(f"{_HERE}.dnet", "DNet", f"{_HERE}.facts.dnet"),
    "dlknetr": Entry(f"{_HERE}.dlknetr", "DLKNETR", f"{_HERE}.facts.dlknetr"),
    "dalight3d": Entry(f"{_HERE}.dalight3d", "DALight3D", f"{_HERE}.facts.dalight3d"),
    "msa2net": Entry(f"{_HERE}.msa2net", "MSA2Net", f"{_HERE}.facts.msa2net"),
    "rep3d": Entry(f"{_HERE}.rep3d", "Rep3D", f"{_HERE}.facts.rep3d"),
    "lka_unet": Entry(f"{_HERE}.lka_unet", "LKAUNet", f"{_HERE}.facts.lka_unet"),
}
_OWN = {
    "lk_click": Entry(f"{_HERE}.lk_click", "LKClick", f"{_HERE}.facts.lk_click"),
}


def _from_monai(builder: str, *more: str) -> Entry:
    return Entry(f"{_HERE}.baselines", builder, f"{_HERE}.facts.baselines", builder.upper(), ("monai", *more))


_BASELINES = {
    "monai_attention_unet": _from_monai("attention_unet"),
    "monai_dynunet": _from_monai("dyn_unet"),
    "monai_mednext": _from_monai("mednext"),
    "monai_segresnet": _from_monai("seg_res_net"),
    "monai_swin_unetr": _from_monai("swin_unetr", "einops"),
    "monai_unetr": _from_monai("unetr", "einops"),
    "monai_vnet": _from_monai("vnet"),
}
_ENTRIES: dict[str, Entry] = {**dict(sorted(_PUBLISHED.items())), **_OWN, **_BASELINES}


def names() -> tuple[str, ...]:
    """The names that `create` takes: published networks first, then our own, then baselines."""
    return tuple(_ENTRIES)


def create(
    name: str, in_channels: int | None = None, out_channels: int | None = None, **options: Any
) -> nn.Module:
    """Build a network with fresh weights.

    Args:
        name: one of `names()`.
        in_channels: channels of the input volume.
        out_channels: classes, that is channels of the logits.
        **options: constructor options of that network; `describe(name)["options"]` lists them.

    Returns:
        The network; calling it with a tensor (batch, in_channels, k, j, i) returns logits
        (batch, out_channels, k, j, i) unless its own documentation says more (deep supervision, evidence).

    Raises:
        InputError: no such network, a package it needs is not installed, an option it does not have or lacks,
            or a value that is not allowed.
    """
    missing = missing_packages(name)
    if missing:
        raise InputError(f"{name} needs more Python packages. Install them: pip install {' '.join(missing)}.")
    network_class = _class_of(name)
    arguments = dict(options)
    if in_channels is not None:
        arguments["in_channels"] = in_channels
    if out_channels is not None:
        arguments["out_channels"] = out_channels
    _check_arguments(name, network_class, arguments)
    network: nn.Module = network_class(**arguments)
    return network


def missing_packages(name: str) -> list[str]:
    """Python packages that this network needs beside torch and that are not installed.

    Raises:
        InputError: no such network.
    """
    return [package for package in _entry(name).packages if find_spec(package) is None]


def facts(name: str) -> NetworkFacts:
    """What is known about a network; needs no torch.

    Raises:
        InputError: no such network.
    """
    entry = _entry(name)
    found = getattr(import_module(entry.facts_module), entry.facts_name)
    if not isinstance(found, NetworkFacts):
        raise TypeError(f"{entry.facts_module}.{entry.facts_name} is not a NetworkFacts")
    return found


def options(name: str) -> dict[str, dict[str, Any]]:
    """The constructor options of a network: {option: {"default": ..., "choices": [...] or None}}.

    Raises:
        InputError: no such network.
    """
    network_class = _class_of(name)
    hints = get_type_hints(network_class.__init__ if inspect.isclass(network_class) else network_class)
    listed: dict[str, dict[str, Any]] = {}
    for parameter in _parameters(network_class):
        required = parameter.default is inspect.Parameter.empty
        listed[parameter.name] = {
            "default": None if required else parameter.default,
            "required": required,
            "choices": _choices(hints.get(parameter.name)),
        }
    return listed


def _choices(hint: Any) -> list[Any] | None:
    if hint is bool:
        return [True, False]
    values = list(get_args(hint))
    return values if values and all(isinstance(value, (str, int)) for value in values) else None


def _entry(name: str) -> Entry:
    if name not in _ENTRIES:
        raise InputError(f"There is no network called {name!r}. Choose one of: {', '.join(_ENTRIES)}.")
    return _ENTRIES[name]


def _class_of(name: str) -> Any:
    entry = _entry(name)
    return getattr(import_module(entry.module), entry.class_name)


def _parameters(network_class: Any) -> list[inspect.Parameter]:
    signature = inspect.signature(network_class)
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [parameter for parameter in signature.parameters.values() if parameter.kind in named]


def _check_arguments(name: str, network_class: Any, arguments: dict[str, Any]) -> None:
    known = {parameter.name: parameter for parameter in _parameters(network_class)}
    for option in arguments:
        if option not in known:
            raise InputError(f"{name} has no option {option!r}. Its options are: {', '.join(known)}.")
    for parameter in known.values():
        if parameter.default is inspect.Parameter.empty and parameter.name not in arguments:
            raise InputError(f"{name} needs {parameter.name}: give create({name!r}, {parameter.name}=…).")
