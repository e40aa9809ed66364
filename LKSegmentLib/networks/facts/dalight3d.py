"""Facts about DALight-3D."""

from LKSegmentLib.networks.facts.record import NetworkFacts, Published

FACTS = NetworkFacts(
    title="DALight-3D",
    summary="A light U-Net of separable convolutions with cross-slice attention and identifier-conditioned "
    "norms.",
    status="exact",
    status_note="Tensor names, shapes and results agree with the released code (2026-05-04), paper "
    "configuration.",
    citation=(
        "Mishra, Mishra, Singh, DALight-3D: A Lightweight 3D U-Net for Brain Tumor Segmentation from "
        "Multi-Modal MRI, "
        "arXiv 2605.04518. Code: github.com/Dhruv27Mishra/DALight3D-paper-release, commit e482d5f."
    ),
    licence="The authors' repository has no licence (all rights reserved); re-implemented here. No weights "
    "published.",
    reference={"in_channels": 4, "out_channels": 4},
    reference_size=(64, 64, 64),
    size_multiple=1,
    minimum_size=2,
    parameters=2_219_074,
    macs=37_688_741_824,
    published=(
        Published("parameters", "2.22 M", "reproduced exactly (4 channels, 4 classes)"),
        Published(
            "saving over the residual U-Net",
            "30 % fewer parameters",
            "true (3.20 M); at 64³ it needs 15 % more multiply-accumulates than that network (measured)",
        ),
        Published(
            "Dice, MSD brain tumour",
            "0.727 against 0.710 of a residual U-Net",
            "not established: the authors' own result files (committed, then removed) hold these two numbers "
            "the "
            "other way round",
        ),
    ),
    known_problems=(
        "The identifier of the released code is Python's salted hash of the case name, modulo 8: noise that "
        "changes "
        "with every process, neither scanner nor modality.",
        "Its training never passes None, so the default scale and shift stay at 1 and 0 in trained weights.",
        "Cross-slice attention sums over the query index; the attended axis is the first of the array "
        "(sagittal "
        "slices in the released loader), not the axial one the text names.",
        "The softmax axes of the skip fusion are the reverse of ordinary linear attention, and its sums grow "
        "with "
        "the number of voxels: half precision can overflow.",
        "Attention, gates and norms pool over the whole window: infer with the training window (64³).",
        "The repository probably swaps the class names of the data set.",
        "The proposed network was validated every second epoch (best of 25) and its rivals every epoch (best of 50), "
        "all on random crops, with Dice 1 for a class that is in neither.",
        "The repository's only documented command stops at once, and so does its mode of comparison (measured).",
    ),
    deviations=(
        "The identifier is an explicit, deterministic input, or None.",
        "A call returns logits; `predict` returns the released dictionary of probabilities and uncertainty.",
        "csa_standard=True (ordinary attention) and average_identifiers() are ours.",
    ),
)
