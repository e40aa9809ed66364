"""Opening a model package: verified manifest, verified weights, the network built from LKSegment's own code."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import TYPE_CHECKING

from LKSegmentLib.errors import InputError
from LKSegmentLib.packages import weights as weight_files
from LKSegmentLib.packages.archive import open_archive
from LKSegmentLib.packages.catalogue import find
from LKSegmentLib.packages.fields import parse_json
from LKSegmentLib.packages.manifest import WEIGHTS_FILE, Manifest, manifest_from

if TYPE_CHECKING:
    import torch


class Package:
    """An opened package. `manifest` is validated, `source` is the folder or zip it came from."""

    def __init__(self, manifest: Manifest, source: Path, network: torch.nn.Module) -> None:
        self.manifest = manifest
        self.source = source
        self._networks: dict[str, torch.nn.Module] = {"cpu": network}

    @property
    def name(self) -> str:
        """The name in the manifest."""
        return self.manifest.name

    def network(self, device: torch.device | str = "cpu") -> torch.nn.Module:
        """Return the network with the package's weights: float32, in evaluation mode, without gradients, on `device`.

        It is kept, so the next call for the same device is free and returns the same network: copy it before
        changing or training it. Raises InputError when the device does not exist.
        """
        import torch

        try:
            wanted = torch.device(device)
            if str(wanted) not in self._networks:
                self._networks[str(wanted)] = copy.deepcopy(self._networks["cpu"]).to(wanted)
        except (RuntimeError, AssertionError) as error:
            first_line = str(error).splitlines()[0]
            raise InputError(f'The device "{device}" cannot be used ({first_line}): choose another one.') from error
        return self._networks[str(wanted)]

    def __repr__(self) -> str:
        return f"Package({self.manifest.name!r}, network={self.manifest.network!r}, source={str(self.source)!r})"


def load(source: str | os.PathLike[str]) -> Package:
    """Open a package: a folder, a zip, or the name of an installed model (see `catalogue`).

    All hashes, the weights and the network are checked. No code from the package is run.
    Raises InputError, one sentence, for whatever is wrong.
    """
    path = locate(source)
    manifest, content = verified(path)
    where = f"The weights of the package {path}"
    tensors = weight_files.from_bytes(content, where)
    named = f"The manifest of the package {path}"
    build = (manifest.network, manifest.options, manifest.in_channels, manifest.out_channels, named)
    # First without memory, so that a manifest cannot make us build something huge that its weights do not fill.
    problem = weight_files.misfit(weight_files.create(*build, device="meta", stored=len(tensors)), tensors)
    if problem:
        raise InputError(
            f'{where} do not fit the network "{manifest.network}" its manifest describes: {problem}. '
            "Save the package again with the options the weights were trained with."
        )
    network = weight_files.create(*build)
    network.load_state_dict(tensors, strict=True)
    return Package(manifest, path, network.eval().requires_grad_(False))


def verify(source: str | os.PathLike[str]) -> Manifest:
    """Return the manifest after checking the package's structure and all its hashes, without building the network."""
    return verified(locate(source))[0]


def verified(path: Path) -> tuple[Manifest, bytes]:
    """Return the manifest and the bytes of the weights. Both were checked as they were read, once."""
    with open_archive(path) as archive:
        manifest = manifest_from(parse_json(archive.read_manifest(), archive.where), archive.where)
        archive.refuse_pickles()
        content = b""
        for name, record in manifest.files.items():
            checked = archive.read_verified(name, record)
            if name == WEIGHTS_FILE:
                content = checked
    return manifest, content


def locate(source: str | os.PathLike[str]) -> Path:
    """Return the path of a package. A bare name means an installed model; anything else is a path."""
    text = os.fspath(source)
    if not text.strip():
        raise InputError("No model was named: give the name of an installed model or the path of a package.")
    bare = isinstance(source, str) and Path(text).name == text and not text.lower().endswith(".zip")
    if bare and not Path(text).is_dir():
        return find(text).folder
    if bare:
        try:
            return find(text).folder
        except InputError:  # no installed model of that name, but a folder here
            return Path(text)
    return Path(os.path.expanduser(text))  # unlike Path.expanduser, it leaves the home of nobody as it is
