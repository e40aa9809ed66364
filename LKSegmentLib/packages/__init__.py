"""Model packages on disk: manifest and safetensors weights, in a folder or one zip.

`catalogue`, `read_manifest` and the manifest's classes need the standard library only; `load` and `save` import
torch and safetensors when called.
"""

from __future__ import annotations

from LKSegmentLib.packages.catalogue import (
    BrokenPackage,
    Entry,
    broken_packages,
    built_in_folder,
    catalogue,
    read_manifest,
    user_folder,
)
from LKSegmentLib.packages.channels import Channel, Intensity
from LKSegmentLib.packages.faithfulness import faithfulness_of, store_faithfulness
from LKSegmentLib.packages.labels import Code, Label, Terminology
from LKSegmentLib.packages.manifest import Manifest
from LKSegmentLib.packages.saving import save
from LKSegmentLib.packages.scores import store_scores
from LKSegmentLib.packages.store import Package, load, verify

__all__ = [
    "BrokenPackage",
    "Channel",
    "Code",
    "Entry",
    "Intensity",
    "Label",
    "Manifest",
    "Package",
    "Terminology",
    "broken_packages",
    "built_in_folder",
    "catalogue",
    "faithfulness_of",
    "load",
    "read_manifest",
    "save",
    "store_faithfulness",
    "store_scores",
    "user_folder",
    "verify",
]
