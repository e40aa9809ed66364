"""What kind of structure a name means: organ, vessel, bone, … Scores are told apart by it."""

from __future__ import annotations

import re
from typing import Literal

Kind = Literal["organ", "bowel", "vessel", "bone", "muscle", "lesion", "brain part", "other"]

KINDS: tuple[Kind, ...] = ("organ", "bowel", "vessel", "bone", "muscle", "lesion", "brain part", "other")

# One word of a name tells the kind. The earlier kind wins: a kidney's cyst is a lesion, a vein of the lung a vessel.
_WORDS: dict[Kind, str] = {
    "lesion": "lesion tumour tumor cyst metastasis nodule",
    "vessel": "artery arteries vein veins vena aorta trunk vessel vessels",
    "muscle": "muscle muscles gluteus autochthon iliopsoas",
    "bone": "bone vertebra vertebrae sacrum hip femur humerus scapula clavicula rib sternum skull",
    "bowel": "bowel duodenum colon rectum",
    "brain part": "brain cerebral cerebellum ventricle thalamus caudate putamen pallidum hippocampus amygdala csf "
    "accumbens diencephalon choroid hypointensities chiasm callosum",
    "organ": "spleen kidney gallbladder liver stomach pancreas adrenal lung esophagus trachea thyroid bladder prostate "
    "heart atrial",
}


def kind_of(name: str) -> Kind:
    """The kind of the structure called ``name``; "other" for discs, cartilage, the spinal cord, what is not known."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    return next((kind for kind, known in _WORDS.items() if words & set(known.split())), "other")
