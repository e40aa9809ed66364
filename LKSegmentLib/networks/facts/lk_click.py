"""Facts about lk_click."""

from LKSegmentLib.networks.facts.record import NetworkFacts

FACTS = NetworkFacts(
    title="LK Click",
    summary="Our own compact large-kernel network for interactive segmentation by clicks.",
    status="own",
    status_note="Designed in this project; not a published network.",
    citation="This project. Its blocks are those of D-Net (arXiv 2403.10674) and of the LK-attention U-Net.",
    licence="Apache-2.0",
    reference={"in_channels": 12, "out_channels": 1, "tells_dice": True},
    reference_size=(64, 64, 64),
    size_multiple=8,
    minimum_size=16,
    deviations=(
        "Dynamic large kernels select per kernel here: each spatial map weighs the response of its own "
        "kernel.",
    ),
)
