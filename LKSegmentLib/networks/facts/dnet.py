"""Facts about D-Net."""

from LKSegmentLib.networks.facts.record import NetworkFacts, Published

FACTS = NetworkFacts(
    title="D-Net",
    summary="Dynamic large kernels (5³, then 7³ dilated by 3) in encoder and decoder, dynamic feature "
    "fusion.",
    status="exact",
    status_note=(
        "Tensor names, shapes and results agree with the released code (network files as of 2025-09-07). "
        "Where text "
        "and code disagree the code is followed: only it has the published parameter count."
    ),
    citation=(
        "Yang et al., D-Net: Dynamic Large Kernel with Dynamic Feature Fusion for Volumetric Medical Image "
        "Segmentation, arXiv 2403.10674. Code: github.com/sotiraslab/DLK, commit e4087d1."
    ),
    licence="The authors' repository has no licence (all rights reserved); re-implemented here. No weights "
    "published.",
    reference={"in_channels": 1, "out_channels": 16, "deep_supervision": True},
    reference_size=(96, 96, 96),
    size_multiple=32,
    minimum_size=32,
    parameters=39_279_174,
    macs=176_834_595_816,
    published=(
        Published("parameters", "39.28 M", "reproduced exactly (1 channel, 16 classes: AMOS)"),
        Published(
            "FLOPs",
            "200.13 G",
            "multiply-accumulates at 1×1×96³ with 16 classes by a tool that counts transposed convolutions 8 "
            "times "
            "too high (23.95 G instead of 2.99 G) and adds norms and biases; reproduced to 0.2–0.4 %. Exact: "
            "176.83 G "
            "with the auxiliary heads that the released code always runs, 176.72 G without",
        ),
        Published("mean Dice, AMOS", "89.67", "published, 5-fold cross-validation; not reproduced here"),
        Published("mean Dice, MSD brain tumour", "74.42", "published; not reproduced here"),
        Published("mean Dice, MSD hepatic vessel", "67.63", "published; not reproduced here"),
    ),
    known_problems=(
        "Both spatial maps of a dynamic large kernel multiply the same concatenation, so only their sum "
        "acts: neither "
        "belongs to one kernel, although the article says so.",
        "The Salience layer applies one batch norm twice: after 300 training steps its outputs in training "
        "and in "
        "evaluation differ by 35 % (measured).",
        "Layer scale 1e-6: untrained blocks are inert.",
        "At 96³ the deepest grid is 3³, where 1 of the 343 taps of the dilated kernel can touch data; a "
        "larger window "
        "at inference wakes untrained taps. Infer with the training window.",
        "Gates pool over the whole window, so results depend on its content.",
        "The article calls the channel mixer's reach global; it is one 3³ convolution.",
        "No training code; patch size, optimiser and schedule are not stated.",
        "Sizes that are no multiples of 32 stop it in a concatenation (measured); nothing is cropped on the way up.",
        "The channel mixer holds 192-channel maps at full resolution: 0.68 GB each at 96³, three of them in training.",
        "Slow as released: auxiliary heads always run, two products where one will do, layer norms that leave maps out "
        "of order in memory, copies of every shortcut. It imports a path that timm has given up.",
    ),
    deviations=(
        "Auxiliary heads run only with deep supervision (same results, 0.11 G fewer multiply-accumulates).",
        "u·w1 + u·w2 is computed as u·(w1 + w2): equal to float rounding.",
        "selection='per_kernel', salience_norm='separate', layer_scale: ours; the defaults are the published "
        "values.",
    ),
    remarks=("The 2024 form of the network (arXiv v1, 29.96 M parameters) is not provided.",),
)
