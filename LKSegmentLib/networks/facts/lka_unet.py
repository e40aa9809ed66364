"""Facts about the LK-attention U-Net."""

from LKSegmentLib.networks.facts.record import NetworkFacts, Published

FACTS = NetworkFacts(
    title="LK-attention U-Net",
    summary="A six-level U-Net whose upsampled maps pass through decomposed large-kernel attention.",
    status="reconstruction",
    status_note=(
        "Base and mid are firm: every size is forced by printed numbers. In full, the kernels at levels 3, 2 "
        "and 1 "
        "are reconstructed (the paper's table could not be read), level 0 is likely, level 4 firm. "
        "Normalisation "
        "groups (8), concatenation order and auxiliary heads are choices."
    ),
    citation=(
        "Li, Nan, Del Ser, Yang, Large-kernel attention for 3D medical image segmentation, Cognitive "
        "Computation "
        "2023/24; predecessor LKAU-Net, MIUA 2022. No code was published."
    ),
    licence="Only the paper exists: no code and no weights of the authors. This implementation: Apache-2.0.",
    reference={"in_channels": 1, "out_channels": 7, "variant": "mid", "deep_supervision": True},
    reference_size=(96, 96, 96),
    size_multiple=32,
    minimum_size=32,
    parameters=101_067_644,
    macs=254_260_297_728,
    published=(
        Published(
            "parameters added by mid",
            "0.0759 %",
            "reproduced: 76,672 on the base's 100,990,972 (1 channel, 7 classes, auxiliary heads included)",
        ),
        Published(
            "mid's share of full's additions",
            "nearly 1/6",
            "reconstructed full adds 469,152: 0.163 (101,460,124 in all)",
        ),
        Published(
            "Dice ET / WT / TC, BraTS 2020",
            "79.01 / 91.31 / 85.75",
            "published for LKAU-Net; not reproduced here",
        ),
    ),
    known_problems=(
        "The text lists the convolutions in another order than the equation; they commute but for the zero "
        "padding "
        "at the border (within 11 voxels of the attended level). The equation is followed.",
        "The pair of kernels reaches K + d - 1 voxels per axis (23 for K = 21, d = 3), not K.",
        "Group normalisation pools over the whole window, so results depend on its content.",
        "The text calls K the number of channels; it is the edge of the kernel. Its FLOPs are multiply-accumulates.",
    ),
    deviations=(
        "order='dw_dwd', norm_groups and attention={level: (K, d)} are ours; defaults as in the paper.",
    ),
    remarks=(
        "Parameters 1→7: base 100,990,972, mid 101,067,644, full 101,460,124.",
        "MACs 4→3 at 160×192×128, the paper's size for BraTS: base 1,134.9 G, mid 1,139.6 G, full 1,211.0 G.",
        "Mid and full weights are not interchangeable at level 2, whose modules differ in size.",
    ),
)
