"""The labelled images this project is measured on: which files, what each label is called, who drew it.

The images themselves are openly published and no part of this project. `structures` reads the list.
"""

from __future__ import annotations

from typing import Any

# FreeSurfer's numbers (FreeSurferColorLUT.txt); that left is left was checked on the labels themselves.
_FREESURFER = {
    2: "left_cerebral_white_matter", 3: "left_cerebral_cortex", 4: "left_lateral_ventricle",
    5: "left_inferior_lateral_ventricle", 7: "left_cerebellum_white_matter", 8: "left_cerebellum_cortex",
    10: "left_thalamus", 11: "left_caudate", 12: "left_putamen", 13: "left_pallidum", 14: "third_ventricle",
    15: "fourth_ventricle", 16: "brain_stem", 17: "left_hippocampus", 18: "left_amygdala", 24: "csf",
    26: "left_accumbens_area", 28: "left_ventral_diencephalon", 30: "left_vessel", 31: "left_choroid_plexus",
    41: "right_cerebral_white_matter", 42: "right_cerebral_cortex", 43: "right_lateral_ventricle",
    44: "right_inferior_lateral_ventricle", 46: "right_cerebellum_white_matter", 47: "right_cerebellum_cortex",
    49: "right_thalamus", 50: "right_caudate", 51: "right_putamen", 52: "right_pallidum", 53: "right_hippocampus",
    54: "right_amygdala", 58: "right_accumbens_area", 60: "right_ventral_diencephalon", 62: "right_vessel",
    63: "right_choroid_plexus", 72: "fifth_ventricle", 77: "white_matter_hypointensities",
    80: "non_white_matter_hypointensities", 85: "optic_chiasm", 251: "corpus_callosum_posterior",
    252: "corpus_callosum_mid_posterior", 253: "corpus_callosum_central", 254: "corpus_callosum_mid_anterior",
    255: "corpus_callosum_anterior",
}

_BY_MODEL = "made by a model"
_NAMES_FILE = "label_names.json"

IMAGES: list[dict[str, Any]] = [
    {
        "case": "01_ct_abdomen_multiorgan", "image": "ct.nii.gz", "labels": "labels_fast.nii.gz",
        "modality": "CT", "reference": _BY_MODEL, "names": _NAMES_FILE,
        "source": "TotalSegmentator", "licence": "Apache-2.0",
    },
    {
        "case": "02_ct_abdomen_dicom_jpeg2000", "image": "dicom", "labels": "labels.nii.gz",
        "modality": "CT", "reference": _BY_MODEL, "names": _NAMES_FILE,
        "licence": "Apache-2.0",
    },
    {
        "case": "03_mr_abdomen_multiorgan", "image": "mr.nii.gz", "labels": "labels.nii.gz",
        "modality": "MR", "reference": _BY_MODEL, "names": _NAMES_FILE,
        "licence": "Apache-2.0",
    },
    {
        "case": "05_cta_heart", "image": "ct.nii.gz", "labels": "pulmonary_artery.nii.gz",
        "modality": "CTA", "reference": _BY_MODEL, "names": {1: "pulmonary_artery"},
        "licence": "Apache-2.0",
    },
    {
        "case": "05_cta_heart", "image": "ct.nii.gz", "labels": "heart_other_grid.nii.gz",
        "modality": "CTA", "reference": _BY_MODEL, "names": {1: "heart"},
        "licence": "Apache-2.0",
    },
    {
        "case": "10_mr_brain_ms_multimodal", "image": "FLAIR.nii.gz", "labels": "lesions.nii.gz",
        "modality": "MR", "reference": "consensus of three raters", "names": {1: "multiple_sclerosis_lesion"},
        "source": "open_ms_data", "licence": "CC BY",
    },
    {
        "case": "14_mr_brain_lesion_aniso", "image": "t1gd.nrrd", "labels": "lesion.nrrd",
        "modality": "MR", "reference": "origin not stated", "names": {1: "brain_lesion"},
        "source": "pyradiomics", "licence": "BSD-3-Clause",
    },
    {
        "case": "15_mr_brain_t1_parcellation", "image": "t1.nii.gz", "labels": "labels.nii.gz",
        "modality": "MR", "reference": "made by software", "names": _FREESURFER,
        "source": "voxelmorph", "licence": "Apache-2.0",
    },
    {
        "case": "17_mr_hippocampus", "image": "t1_crop.nii.gz", "labels": "labels.nii.gz",
        "modality": "MR", "reference": "manual", "names": {1: "hippocampus_anterior", 2: "hippocampus_posterior"},
        "source": "Medical Segmentation Decathlon", "licence": "CC BY-SA 4.0",
    },
    {
        "case": "18_mr_spinal_cord", "image": "t2.nii.gz", "labels": "t2_cord.nii.gz",
        "modality": "MR", "reference": "manual", "names": {1: "spinal_cord"},
        "source": "Spinal Cord Toolbox", "licence": "MIT",
    },
    {
        "case": "18_mr_spinal_cord", "image": "t2s.nii.gz", "labels": "t2s_greymatter.nii.gz",
        "modality": "MR", "reference": "manual", "names": {1: "spinal_cord_grey_matter"},
        "source": "Spinal Cord Toolbox", "licence": "MIT",
    },
]
