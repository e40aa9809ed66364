"""The weight-randomisation check: a map that stays alike when the weights are shuffled does not show what was learnt.

Layers are randomised from the last one that ran to the first, more and more of them (the cascade of Adebayo et al.,
"Sanity checks for saliency maps", NeurIPS 2018), and the map is compared with the original by rank correlation
(Spearman). Values of each weight tensor are shuffled within the tensor instead of drawn anew: their distribution stays,
so that the network neither dies nor explodes, and it works for every kind of layer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import nn

from LKSegmentLib.inference.segmentation import run_network

from .examined import ExaminedWindow, Float
from .tables import Cell, Table

GROUPS = 6
SEEDS = (0, 1)

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Randomised:
    """How like itself a map stays.

    `final`: size of the rank correlation when all weights are shuffled, mean over the seeds; 0 where the map is then
    the same everywhere, None where it was so from the start.
    """

    map: str
    final: float | None
    table: Table


def weight_randomisation(
    window: ExaminedWindow, names: Sequence[str], seeds: Sequence[int] = SEEDS, progress: Progress | None = None
) -> list[Randomised]:
    """Rank correlation of the maps `names` in this window before and after shuffling ever more weights.

    A map that is the same everywhere has no ranks: there its correlation is None. The network itself is not touched.
    Layers that run after those that a map is read from cannot change it; they are listed all the same.

    Raises:
        InputError: a map that does not exist.
    """
    original = window.values(names)
    groups = _groups(window)
    # By seed, then by step: the correlations of the maps by name.
    found: list[list[dict[str, float | None]]] = []
    for number, seed in enumerate(seeds):
        network = copy.deepcopy(window.network)
        modules = dict(network.named_modules())
        generator = torch.Generator().manual_seed(seed)
        found.append([{name: rank_correlation(values, values) for name, values in original.items()}])
        for step, group in enumerate(groups, start=1):
            for layer in group.layers:
                _shuffle(modules[layer], generator)
            now = window.values(names, network)
            found[-1].append({name: rank_correlation(original[name], now[name]) for name in names})
            if progress is not None:
                progress("weights shuffled", (number + step / len(groups)) / len(seeds))
    return [_randomised(window, name, groups, [[step[name] for step in steps] for steps in found]) for name in names]


def _randomised(
    window: ExaminedWindow, name: str, groups: Sequence[_Group], by_seed: Sequence[Sequence[float | None]]
) -> Randomised:
    constant = by_seed[0][0] is None
    total = sum(_weights(module) for group in groups for module in group.modules)
    shuffled = 0
    rows: list[tuple[Cell, ...]] = []
    for step, values in enumerate(zip(*by_seed, strict=True)):
        group = groups[step - 1] if step else None
        shuffled += sum(_weights(module) for module in group.modules) if group else 0
        sizes = [0.0 if value is None else abs(value) for value in values]
        size = None if constant else float(np.mean(sizes))
        rows.append((step, group.words if group else "nothing", 100 * shuffled / total, size, *values))
    columns = ("step", "shuffled in this step", "weights shuffled (%)", "size of the rank correlation")
    passport = {
        "name": f"weights shuffled: {name}",
        "model": window.manifest.name,
        "network": window.manifest.network,
        "kind": "sanity check",
        "operator": "Spearman rank correlation of the map with itself, after the values of ever more weight tensors "
        "were shuffled within each, last layers first; its size (a pattern turned round is the same pattern), mean "
        "over the seeds",
        "unit": "none, 0 to 1",
        "neutral": 0.0,
        "sentence": "A map that stays alike with shuffled weights does not show what was learnt.",
    }
    seeds = [f"seed {number}" for number in range(1, len(by_seed) + 1)]
    table = Table(str(passport["name"]), (*columns, *seeds), tuple(rows), "step", columns[-1:], passport)
    final = rows[-1][3]
    return Randomised(name, final if isinstance(final, float) else None, table)


def rank_correlation(first: Float, second: Float) -> float | None:
    """Spearman's, ties sharing their mean rank; None where one of them is the same everywhere or has no numbers."""
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return None
    ranks: list[NDArray[np.float64]] = [rankdata(values.ravel()) for values in (first, second)]
    if any(values.min() == values.max() for values in ranks):
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


@dataclass(frozen=True)
class _Group:
    """Layers that ran one after the other, shuffled in one step; the last one first."""

    layers: list[str]
    modules: list[nn.Module]

    @property
    def words(self) -> str:
        first, last = self.layers[0], self.layers[-1]
        return first if first == last else f"{first} … {last}"


def _groups(window: ExaminedWindow) -> list[_Group]:
    """All modules that hold weights of their own, from the last that ran to the first, in `GROUPS` steps."""
    modules = dict(window.network.named_modules())
    order = _order(window)
    own = [name for name, module in modules.items() if _weights(module)]
    own.sort(key=lambda name: order[name], reverse=True)
    parts = np.array_split(np.arange(len(own)), min(GROUPS, len(own)))
    names = [[own[index] for index in part] for part in parts]
    return [_Group(layers, [modules[layer] for layer in layers]) for layers in names]


def _order(window: ExaminedWindow) -> dict[str, int]:
    """When each module first answered. One whose weights are used without calling it counts with what surrounds it."""
    answered: dict[str, int] = {}
    handles = []
    for name, module in window.network.named_modules():

        def hook(_module: nn.Module, _inputs: object, _output: object, name: str = name) -> None:
            answered.setdefault(name, len(answered))

        handles.append(module.register_forward_hook(hook))
    try:
        with torch.inference_mode():
            run_network(window.network, window.inputs(window.image), window.manifest)
    finally:
        for handle in handles:
            handle.remove()

    def when(name: str) -> int:
        while name and name not in answered:
            name = name.rpartition(".")[0]
        return answered.get(name, 0)

    return {name: when(name) for name, _ in window.network.named_modules()}


def _weights(module: nn.Module) -> int:
    """How many weights a module holds itself, those of the modules inside it left out."""
    return sum(parameter.numel() for parameter in module.parameters(recurse=False))


def _shuffle(module: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in module.parameters(recurse=False):
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
