"""Real images, left-handed and oblique ones among them: through the scene and back. Skipped where they are missing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from LKSegmentLib.scene import bundle
from LKSegmentLib.scene.segments import ensure_segmentation, import_labels, mask_on
from LKSegmentLib.scene.terminology import label_entries
from LKSegmentLib.scene.volumes import add_volume_node, volume_of
from LKSegmentLib.volumes import read_volume


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("01_ct_abdomen_multiorgan/ct.nii.gz", "01_ct_abdomen_multiorgan/labels_fast.nii.gz"),
        ("15_mr_brain_t1_parcellation/t1.nii.gz", "15_mr_brain_t1_parcellation/labels.nii.gz"),
        ("14_mr_brain_lesion_aniso/t1gd.nrrd", "14_mr_brain_lesion_aniso/lesion.nrrd"),
    ],
    ids=["CT", "left-handed", "anisotropic"],
)
def test_every_structure_comes_back_voxel_for_voxel_through_a_file(context, real_data, tmp_path, image, labels):
    if not (real_data / image).is_file():
        pytest.skip(f"{image} is not there")
    volume, reference = read_volume(real_data / image), read_volume(real_data / labels)
    node = add_volume_node(context, volume, "image")
    assert np.array_equal(volume_of(node).array, volume.array)
    assert volume_of(node).grid.matches(volume.grid, 1e-4)

    names_file = (real_data / labels).parent / "label_names.json"
    names = json.loads(names_file.read_text()) if names_file.is_file() else {}
    values = [int(value) for value in np.unique(reference.array) if value > 0]
    entries = label_entries([{"name": names.get(str(value), f"label {value}"), "value": value} for value in values])
    segmentation = ensure_segmentation(context, node, "structures")
    ids = import_labels(segmentation, reference.array.astype(np.uint16), entries, reference.ijk_to_ras)
    assert sorted(ids) == values
    back = bundle.read_segmentation(context, bundle.write_segmentation(segmentation, tmp_path / "all.seg.nrrd"))
    for value in values:
        assert np.array_equal(mask_on(segmentation, ids[value], volume.grid), reference.array == value)
        assert np.array_equal(mask_on(back, ids[value], volume.grid), reference.array == value)
