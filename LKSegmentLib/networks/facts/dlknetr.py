"""Facts about DLKNETR."""

from LKSegmentLib.networks.facts.record import NetworkFacts, Published

FACTS = NetworkFacts(
    title="DLKNETR",
    summary="D-Net's sibling: an encoder of dynamic large kernels under the decoder of UNETR.",
    status="exact",
    status_note=(
        "Tensor names, shapes and counts agree with the released code. That the normalised output of a stage "
        "feeds "
        "the next stage, and not the skip alone, is inferred from a description in words."
    ),
    citation="As of D-Net (arXiv 2403.10674). Code: github.com/sotiraslab/DLK, commit e4087d1.",
    licence="The authors' repository has no licence (all rights reserved); re-implemented here. No weights "
    "published.",
    reference={"in_channels": 1, "out_channels": 16, "deep_supervision": True},
    reference_size=(96, 96, 96),
    size_multiple=1,
    minimum_size=17,
    parameters=45_887_088,
    macs=314_903_617_344,
    published=(
        Published(
            "parameters",
            "none printed",
            "released code: 45,887,088 with auxiliary heads, 45,863,200 without (measured)",
        ),
    ),
    known_problems=(
        "depths[4] and the head on 768 channels exist and are never used.",
        "Gates pool over the whole window, so results depend on its content.",
    ),
    deviations=(
        "selection='per_kernel' and layer_scale are ours; defaults as published (layer scale 1e-2).",
    ),
    remarks=("Odd sizes work: upsampled maps are cut to the size of the skip.",),
)
