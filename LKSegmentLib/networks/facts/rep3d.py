"""Facts about Rep3D."""

from LKSegmentLib.networks.facts.record import NetworkFacts, Published

FACTS = NetworkFacts(
    title="Rep3D",
    summary="21³ depth-wise kernels whose weights a learnable mask weakens away from the centre.",
    status="exact",
    status_note=(
        "Inference is exact against the released code (2026-04-30): tensor names, shapes, results. The mask "
        "generator used in training (lrbm='learned', 'per_channel') is our definition, because the released "
        "one "
        "cannot run and could not learn."
    ),
    citation=(
        "Lee et al., Rep3D: Re-parameterize Large 3D Kernels with Low-Rank Receptive Modeling for Medical "
        "Imaging, "
        "arXiv 2505.19603 (ICML 2026 version announced in the repository). Code: github.com/leeh43/Rep3D, "
        "commit "
        "c3d5839."
    ),
    licence="The authors' code is MIT-licensed; re-implemented here. Weights announced, none published.",
    reference={"in_channels": 1, "out_channels": 16, "deploy": True},
    reference_size=(96, 96, 96),
    size_multiple=16,
    minimum_size=32,
    parameters=65_832_464,
    macs=703_505_958_912,
    published=(
        Published(
            "parameters, fixed prior",
            "65.8 M",
            "reproduced exactly; the count includes the generator's 5,536 parameters, which deployed models "
            "carry",
        ),
        Published(
            "parameters, learned mask", "66.0 M", "not reproducible: the released generator adds 0.0055 M"
        ),
        Published(
            "FLOPs, fixed prior",
            "757.4 G",
            "multiply-accumulates at 1×1×96³ with 3 or 4 classes by a tool that counts transposed "
            "convolutions 8 "
            "times too high; reproduced (757.37–757.41). Exact: 702.95 G with 3 classes, 703.51 G with 16",
        ),
        Published("Dice AMOS-CT / AMOS-MRI", "0.910 / 0.864", "published; not reproduced here"),
        Published(
            "Dice KiTS / pancreas / hepatic", "0.736 / 0.723 / 0.674", "published; not reproduced here"
        ),
    ),
    known_problems=(
        "The released training path stops at its first step: the generator's second convolution enlarges the "
        "map.",
        "With that mended, its norms act on one element each, so the mask is the prior plus a constant.",
        "It stores the masked weight back at every pass: no gradient, no update, and the kernels collapse to "
        "their "
        "centre tap. The published results must stem from other code (inferred).",
        "At 96³ the last stage's grid is 6³, where 14 % of the 21³ taps can touch data; a larger window at "
        "inference "
        "wakes untrained taps. Infer with the training window.",
        "Checkpoints repeat the prior for every channel (53 MB).",
        "Instance norms make results depend on the window's content.",
        "The repository cannot be imported as it is: modules and requirements.txt are missing, and it needs a MONAI of "
        "2022 (0.9).",
        "Its validation averages a running mean over the cases, so the metric it selects by is not the mean Dice.",
        "Its options a, drop_path_rate, layer_scale_init_value and conv_block have no effect.",
    ),
    deviations=(
        "The mask generator normalises over the kernel's taps and starts at the fixed prior (ours).",
        "The head takes feature_sizes[0] channels; the released one always 48.",
        "The prior is computed, not stored; exporting to the published layout writes it out.",
    ),
    remarks=(
        "Raw and baked weights are kept apart by `deploy` and by a marker in the state dict. The authors' "
        "checkpoints are taken as deployed: create with deploy=True.",
    ),
)
