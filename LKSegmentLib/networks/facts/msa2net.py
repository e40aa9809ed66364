"""Facts about MSA2-Net."""

from LKSegmentLib.networks.facts.record import NetworkFacts, Published

FACTS = NetworkFacts(
    title="MSA2-Net (reconstruction)",
    summary="A slice-wise CSWin Transformer with convolutions that mix kernels of several sizes for each "
    "image.",
    status="reconstruction",
    status_note=(
        "Only prose of the papers could be read: no formula, table, code or weights. The encoder is the "
        "published "
        "CSWin Transformer (tensor names of its weights); the adaptive convolution follows the 2026 text; "
        "candidate "
        "sizes, wiring of bridge, decoder and auxiliary ResNet are choices. Do not report results under the "
        "authors' "
        "name."
    ),
    citation=(
        "Deng, Gong, Li, Qin, Qin, MSA2-Net: Utilizing self-adaptive convolution module to extract "
        "multi-scale "
        "information in medical image segmentation, Science Progress 109(2), 2026, doi "
        "10.1177/00368504261432413; "
        "arXiv 2509.01498. Encoder: Dong et al., CSWin Transformer, arXiv 2107.00652."
    ),
    licence=(
        "No code, weights or licence statement of the authors were found. CSWin ImageNet weights are "
        "MIT-licensed by "
        "their authors; they are not shipped here. This implementation: Apache-2.0."
    ),
    reference={"in_channels": 1, "out_channels": 9},
    reference_size=(1, 224, 224),
    size_multiple=1,
    minimum_size=1,
    parameters=28_760_849,
    macs=5_251_702_240,
    published=(
        Published(
            "parameters, FLOPs", "none found", "ours: 28,760,849; multiply-accumulates for one slice of 224²"
        ),
        Published(
            "Dice / HD95, Synapse",
            "86.49 % / 14.15",
            "published (14.13 in its ablation); not reproduced here",
        ),
        Published("Dice, ACDC", "92.56 %", "published; not reproduced here"),
        Published("Dice, Kvasir-SEG / ISIC2017", "93.37 % / 92.98 %", "published; not reproduced here"),
    ),
    receptive_note=(
        "In voxels of the resized slice: stripes of attention are as high and as wide as the map, so every stage sees "
        "its whole row and column. Across slices: 1 voxel."
    ),
    known_problems=(
        "The 2025 and 2026 texts define the adaptive convolution differently (one size for a data set; a "
        "soft mixture "
        "for each input) and print the same scores.",
        "In the published ablation, keeping the bridge alone loses as much as removing bridge and decoder.",
        "Slices are segmented one by one; nothing couples them.",
        "The scores printed for rival networks disagree with each other (AgileFormer 85.84 and 85.15).",
    ),
    deviations=(
        "The last norms of the auxiliary ResNet start at 0.01 instead of 0: at zero its ReLU would never "
        "pass a "
        "gradient.",
        "dense, auxiliary and slice_size are ours.",
    ),
    remarks=(
        "Scale intensities by one rule for the whole volume, not slice by slice, or the mixtures jitter.",
        "Inference gives it whole slices, whatever window the package names: the mixtures depend on the share of "
        "background they see.",
        "Slices lie along the first array axis: axial in the canonical orientation, the only one the paper "
        "trains on.",
    ),
)
