"""A checkpoint of another program → a verified model package: `lksegment import` in one function.

Needs torch; `LKSegmentLib.packages` does not import this file by itself.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from LKSegmentLib import networks
from LKSegmentLib.errors import InputError, RunError
from LKSegmentLib.networks.dalight3d import DALight3D
from LKSegmentLib.packages import saving
from LKSegmentLib.packages import weights as weight_files
from LKSegmentLib.packages.catalogue import user_folder
from LKSegmentLib.packages.descriptions import (
    Dataset,
    Plan,
    dataset_from,
    dataset_named,
    plan_from,
    read_json,
)
from LKSegmentLib.packages.manifest import Manifest
from LKSegmentLib.packages.reading import Checkpoint, read_checkpoint
from LKSegmentLib.packages.recognition import Recognised, recognised, settled_options, without_outer_name
from LKSegmentLib.packages.settling import (
    is_click,
    missing_labels,
    settled_channels,
    settled_labels,
    unstated,
    usual_window,
)
from LKSegmentLib.packages.store import Package, load
from LKSegmentLib.packages.weight_checks import suspicions, try_out
from LKSegmentLib.version import __version__

UNKNOWN_LICENCE = "Not stated. Ask the authors of the weights before you use or share them."
# A network this many times larger than its checkpoint cannot be the one it came from.
LARGEST_EXCESS = 4

Labels = str | os.PathLike[str] | Sequence[Any] | Mapping[str, Any]


@dataclass(frozen=True)
class Imported:
    """The package that was written, and what the person should know about it.

    folder      the package
    manifest    as it was read back
    unseen      constructor values that the tensors do not tell, as they were taken
    warnings    sentences: signs of trouble in the weights, and values nobody stated
    """

    folder: Path
    manifest: Manifest
    unseen: Mapping[str, Any]
    warnings: tuple[str, ...]


def import_checkpoint(
    checkpoint: str | os.PathLike[str],
    labels: Labels | None = None,
    folder: str | os.PathLike[str] | None = None,
    *,
    network: str | None = None,
    options: Mapping[str, Any] | None = None,
    plans: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    configuration: str | None = None,
    spacing: Sequence[float] | None = None,
    window: Sequence[int] | None = None,
    intensity: Mapping[str, Any] | None = None,
    licence: str | None = None,
    name: str | None = None,
    title: str | None = None,
    regions: bool = False,
    entry: str | None = None,
    average_identifiers: bool = False,
    overwrite: bool = False,
) -> Imported:
    """Read a checkpoint without running code from it, find out its network, and write a model package.

    checkpoint      .pt or .pth of torch.save (also of nnU-Net v2), or .safetensors
    labels          names with commas, a JSON file, or their values; not needed where the checkpoint of nnU-Net v2
                    carries its dataset.json, and for a click model
    folder          where the package goes; by default the user's model folder
    network         refuse any other; needed for networks that cannot be recognised
    options         constructor values that the tensors do not tell
    plans           nnU-Net's plans.json, for spacing, window and intensities; `configuration` names one of it
    spacing         (x, y, z) mm; window (k, j, i); intensity one rule for all channels: instead of the plans'
    regions         outputs may overlap and are decided one by one
    entry           which weights to take where the file holds several sets
    average_identifiers   DALight-3D: set the norms' defaults to the means over the identifiers
    overwrite       replace a package at `folder`

    Raises InputError when anything does not fit, RunError when writing fails; nothing is written then.
    """
    path = Path(checkpoint).expanduser()
    target = target_of(folder, name, path)
    saving.check_target(target, overwrite)
    dataset = None if labels is None else given_dataset(labels)
    read = read_checkpoint(path, entry)
    where = f"The checkpoint {path}"
    weight_files.refuse_non_finite(read.tensors, where)
    if dataset is None:
        dataset = carried_dataset(read, where)
    plan = given_plan(read, plans, configuration, where)

    found, built = network_of(read.tensors, network, dict(options or {}), dataset, regions, where)
    if average_identifiers:
        average(built, found)
    warnings = list(suspicions(built, found.heads))
    if any(tensor.dtype is torch.float64 for tensor in read.tensors.values()):
        warnings.append("The weights are stored in double precision: they are rounded to single precision.")
    try_out(built, found.in_channels, where)
    described, output = settled_labels(dataset, found, regions, where, warnings)
    click = is_click(found)
    values: dict[str, Any] = {
        "kind": "click" if click else "volume",
        "output": output,
        "channels": settled_channels(dataset, plan, intensity, found, where, warnings),
        "name": name or saving.default_name(target),
        "title": title or f"{networks.facts(found.network).title}: {name or saving.default_name(target)}",
        "citation": networks.facts(found.network).citation,
        "extra": {"imported": provenance(path)},
        "in_channels": found.in_channels,
        "out_channels": found.out_channels,
    }
    if plan is not None and not click:
        spacing, window = spacing or plan.spacing, window or plan.window
    warnings += unstated(found, spacing, window, licence, plan, click)
    saving.save(
        target,
        network=found.network,
        options=found.options,
        state_dict=built.state_dict(),
        labels=described,
        spacing=spacing,
        window=window or usual_window(found.network),
        licence=licence or UNKNOWN_LICENCE,
        overwrite=overwrite,
        **values,
    )
    return Imported(target, reread(target, built).manifest, found.unseen, tuple(warnings))


def target_of(folder: str | os.PathLike[str] | None, name: str | None, checkpoint: Path) -> Path:
    """Return where the package goes: `folder`, or the user's model folder under the name or the file's stem."""
    if folder is not None:
        return Path(folder).expanduser()
    return user_folder() / (name or saving.default_name(Path(checkpoint.stem)))


def given_dataset(labels: Labels) -> Dataset:
    """Return what the labels say, whatever form they have."""
    if isinstance(labels, (str, os.PathLike)):
        return dataset_named(os.fspath(labels))
    return dataset_from(labels, "The labels")


def carried_dataset(read: Checkpoint, where: str) -> Dataset | None:
    """Return what the dataset.json inside a checkpoint of nnU-Net v2 says, or None."""
    carried = read.init_args.get("dataset_json")
    return dataset_from(carried, f"{where}, dataset_json") if isinstance(carried, Mapping) else None


def given_plan(
    read: Checkpoint, plans: str | os.PathLike[str] | Mapping[str, Any] | None, configuration: str | None, where: str
) -> Plan | None:
    """Return how volumes were prepared, by the plans given or those inside a checkpoint of nnU-Net v2, or None."""
    named = configuration or read.init_args.get("configuration")
    chosen = named if isinstance(named, str) else None
    if isinstance(plans, (str, os.PathLike)):
        path = Path(plans).expanduser()
        return plan_from(read_json(path, "plans file"), chosen, f"The plans file {path}")
    if plans is not None:
        return plan_from(plans, chosen, "The plans")
    carried = read.init_args.get("plans")
    if isinstance(carried, Mapping):
        return plan_from(carried, chosen, f"{where}, plans")
    if configuration is not None:
        raise InputError(f'--configuration "{configuration}" names a part of nnU-Net\'s plans: give them with --plans.')
    return None


def network_of(
    tensors: Mapping[str, Tensor],
    wanted: str | None,
    given: dict[str, Any],
    dataset: Dataset | None,
    regions: bool,
    where: str,
) -> tuple[Recognised, nn.Module]:
    """Return what the weights belong to, its `options` complete, and the network with the weights in it."""
    tensors = without_outer_name(tensors)
    found = recognised(tensors, wanted, where)
    if found is None:
        assert wanted is not None  # recognised() names the network otherwise
        found = tried(tensors, wanted, given, dataset, regions, where)
    else:
        options = settled_options(found, given, where)
        inputs, outputs = options.pop("in_channels"), options.pop("out_channels")
        unseen = {option: options.get(option, inputs) for option in found.unseen if option not in given}
        found = replace(found, in_channels=inputs, out_channels=outputs, options=options, unseen=unseen)
    build = (found.network, found.options, found.in_channels, found.out_channels, where)
    wants = sum(tensor.numel() for tensor in weight_files.create(*build, device="meta").state_dict().values())
    holds = sum(tensor.numel() for tensor in tensors.values())
    if wants > LARGEST_EXCESS * holds:
        raise InputError(
            f'{where} is incomplete: it holds {holds:,} numbers, and "{found.network}" of this form has {wants:,}.'
        )
    built = weight_files.create(*build)
    return found, networks.load_official(built, tensors).eval().requires_grad_(False)


def tried(
    tensors: Mapping[str, Tensor],
    wanted: str,
    given: dict[str, Any],
    dataset: Dataset | None,
    regions: bool,
    where: str,
) -> Recognised:
    """Return the form of a network without a signature, its numbers of channels found by trial."""
    if dataset is None:
        raise missing_labels(where)
    values: dict[str, Any] = {key: given.pop(key) for key in ("in_channels", "out_channels") if key in given}
    values |= {"network": wanted, "options": given, "kind": "volume", "labels": list(dataset.labels)}
    if dataset.regions or regions:
        values["output"] = "regions"
    saving.settle_channels(values, tensors, where)
    return Recognised(wanted, values["in_channels"], values["out_channels"], given)


def average(network: nn.Module, found: Recognised) -> None:
    """Set the default scale and shift of DALight-3D's norms to the means over its identifiers."""
    if not isinstance(network, DALight3D) or not network.icn:
        raise InputError(f'--average-identifiers is for DALight-3D with identifiers, and this is "{found.network}".')
    network.average_identifiers()


def provenance(path: Path) -> dict[str, Any]:
    """Return what identifies the checkpoint: its file name, size and SHA-256."""
    with open(path, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256") if hasattr(hashlib, "file_digest") else hashed(stream)
    size = path.stat().st_size
    return {"file": path.name, "bytes": size, "sha256": digest.hexdigest(), "lksegment": __version__}


def hashed(stream: Any) -> Any:
    """Return the SHA-256 of a stream (Python 3.10 has no `hashlib.file_digest`)."""
    digest = hashlib.sha256()
    while part := stream.read(2**20):
        digest.update(part)
    return digest


def reread(target: Path, network: nn.Module) -> Package:
    """Open the package that was written, and compare every number. RunError when one differs."""
    package = load(target)
    tensors = package.network().state_dict()
    for name, tensor in network.state_dict().items():
        if not torch.equal(tensors[name], tensor):
            raise RunError(f'The package {target} reads back differently ("{name}"): the disk may be damaged.')
    return package
