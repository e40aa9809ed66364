"""Rep3D: 21³ depth-wise kernels with learnable receptive-bias modulation (arXiv 2505.19603, ICML 2026).

    image ─┬─ stem ─ 2 blocks ─┬─ down ─ 2 blocks ─┬─ down ─ 2 blocks ─┬─ down ─ 2 blocks ─┐
           │                   │ 48, 1/2           │ 96, 1/4           │ 192, 1/8          │ 384, 1/16
        residual            residual            residual            residual            residual
           └─► up, residual ◄──┴─ up, residual ◄───┴─ up, residual ◄───┴─ up, residual ◄───┘  ─► logits

Inference is exact against the released code (2026-04-30). Training is *ours*: the released training path
stops at its first step, and with that mended it would still learn nothing about its masks; see
`blocks.receptive_bias`.

Raw and baked weights. `deploy=False` holds raw weights W and multiplies them with the mask at every pass.
`bake()` writes W · M into W, once, and makes the network a deployed one; `deploy=True` starts there. The
state dict carries which of the two it is (`lrbm_baked`), so that weights can never be baked twice. The
authors' checkpoints do not say; they are used unchanged by the authors' own inference, so create the network
with `deploy=True` for them.

Known limit of the published design: at 96³ the last stage's grid is 6³, where 14 % of the 21³ taps can touch
data. A larger window at inference wakes untrained taps; use the training window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from LKSegmentLib.errors import InputError, RunError

from .blocks import ChannelLayerNorm
from .blocks.receptive_bias import LRBM, ReceptiveBiasBlock
from .blocks.residual import OutputBlock, SkipBlock, UpBlock
from .constraints import check_input, whole, whole_list
from .receptive_field import Line, StageField

_GENERATOR = ("prior_conv.", "norm_w.", "prior_conv2.", "norm_w2.")


class Rep3D(nn.Module):
    """Rep3D.

    Args:
        in_channels: of the image.
        out_channels: classes.
        depths: blocks of each of the four stages.
        feature_sizes: channels of each stage. (The published head takes 48 channels whatever they are; ours
            follows.)
        hidden_size: channels of the bottleneck.
        kernel_size: edge of the depth-wise kernels, odd.
        lrbm: the mask on the kernels: `"learned"` (our definition), `"fixed"` (the published prior),
            `"none"`, `"per_channel"`, `"grad"`; see `ReceptiveBiasConv3d`.
        deploy: the weights to be loaded are baked; no mask is applied. Tensors of the generator remain, as in
            the authors' deployed models.
        learn_beta: make the prior's exponent a parameter (ours).

    Raises:
        InputError: a value that is not allowed.
    """

    size_multiple: int = 16
    minimum_size: int = 32
    lrbm_baked: Tensor

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 13,
        depths: Sequence[int] = (2, 2, 2, 2),
        feature_sizes: Sequence[int] = (48, 96, 192, 384),
        hidden_size: int = 768,
        kernel_size: int = 21,
        lrbm: LRBM = "learned",
        deploy: bool = False,
        learn_beta: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = whole("in_channels", in_channels)
        self.out_channels = whole("out_channels", out_channels)
        self.depths = whole_list("depths", depths, length=4)
        self.feature_sizes = c = whole_list("feature_sizes", feature_sizes, length=4)
        self.kernel_size = kernel_size
        self.deploy = deploy
        hidden = whole("hidden_size", hidden_size)

        how = (kernel_size, lrbm, deploy, learn_beta)
        stages = nn.ModuleList(
            nn.Sequential(*(ReceptiveBiasBlock(width, *how) for _ in range(depth)))
            for width, depth in zip(c, self.depths, strict=True)
        )
        self.rep3d = _Encoder(in_channels, c, stages)
        self.encoder1 = SkipBlock(in_channels, c[0])
        self.encoder2 = SkipBlock(c[0], c[1])
        self.encoder3 = SkipBlock(c[1], c[2])
        self.encoder4 = SkipBlock(c[2], c[3])
        self.encoder5 = SkipBlock(c[3], hidden)
        self.decoder5 = UpBlock(hidden, c[3])
        self.decoder4 = UpBlock(c[3], c[2])
        self.decoder3 = UpBlock(c[2], c[1])
        self.decoder2 = UpBlock(c[1], c[0])
        self.decoder1 = SkipBlock(c[0], c[0])
        self.out = OutputBlock(c[0], out_channels)
        self.register_buffer("lrbm_baked", torch.tensor(deploy))

    def forward(self, image: Tensor) -> Tensor:
        """Segment.

        Args:
            image: (batch, in_channels, k, j, i); each size a multiple of 16, one of them at least 32 (instance norm
                at 1/16 needs two voxels).

        Returns:
            Logits (batch, out_channels, k, j, i).

        Raises:
            InputError: a size or a number of channels that the network cannot take.
        """
        least, multiple = self.minimum_size, self.size_multiple
        check_input("Rep3D", image.shape, self.in_channels, multiple, least, thinnest=multiple)
        features = self.rep3d(image)
        x = self.encoder5(features[3])
        x = self.decoder5(x, self.encoder4(features[2]))
        x = self.decoder4(x, self.encoder3(features[1]))
        x = self.decoder3(x, self.encoder2(features[0]))
        x = self.decoder2(x, self.encoder1(image))
        logits: Tensor = self.out(self.decoder1(x))
        return logits

    def blocks(self) -> dict[str, ReceptiveBiasBlock]:
        """The large-kernel blocks by name."""
        return {
            name: module for name, module in self.named_modules() if isinstance(module, ReceptiveBiasBlock)
        }

    def bake(self) -> Rep3D:
        """Write W · M into every large kernel and deploy the network: the same results, no mask to compute.

        Raises:
            RunError: the weights are baked already.
        """
        if self.deploy:
            raise RunError(
                "These Rep3D weights are baked already; baking them again would apply the mask twice."
            )
        for block in self.blocks().values():
            block.bake()
        self.lrbm_baked.fill_(True)
        self.deploy = True
        return self

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As of any module, but raw weights only go into a raw network and baked ones into a deployed one.

        Raises:
            InputError: they do not belong together.
        """
        stored = state_dict.get("lrbm_baked")
        if stored is not None and bool(stored) != self.deploy:
            state = "baked" if bool(stored) else "raw"
            raise InputError(
                f"These Rep3D weights are {state}: create the network with deploy={bool(stored)} for them."
            )
        return super().load_state_dict(state_dict, *args, **kwargs)

    def collapsed_kernels(self) -> list[str]:
        """Kernels with all but 1e-6 of their energy at the centre tap: the mark of the published training loop."""
        found = []
        for name, block in self.blocks().items():
            energy = block.dwconv.weight.detach().double().square()
            middle = self.kernel_size // 2
            centre, total = energy[:, :, middle, middle, middle].sum(), energy.sum()
            if total > 0 and (total - centre) < 1e-6 * total:
                found.append(name)
        return found

    def official_to_native(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Leave out the stored priors (recomputed here), unused shortcuts of old MONAI, and generators not built."""
        native = dict(tensors)
        wanted = self.state_dict()
        for key in tensors:
            part = key.rsplit(".", 2)[-2] + "." if "." in key else ""
            unused_shortcut = key.endswith(".conv3.conv.weight")
            if key.endswith(".prior_map") or (key not in wanted and (unused_shortcut or part in _GENERATOR)):
                del native[key]
        native.setdefault("lrbm_baked", torch.tensor(self.deploy))
        for name in self.blocks():
            if f"{name}.beta" in wanted:
                native.setdefault(f"{name}.beta", torch.ones(()))
        return native

    def native_to_official(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The published names in their published order, with the prior repeated for every channel."""
        order = ("beta", "dwconv.", "norm.", *_GENERATOR)
        official: dict[str, Tensor] = {}
        pending = self.blocks()
        for key, tensor in tensors.items():
            name = next((name for name in pending if key.startswith(f"{name}.")), None)
            if name is not None:
                block = pending.pop(name)
                prior = block.prior().detach().cpu()[None, None]
                official[f"{name}.prior_map"] = prior.repeat(block.dwconv.out_channels, 1, 1, 1, 1)
                for part in order:
                    official.update((k, v) for k, v in tensors.items() if k.startswith(f"{name}.{part}"))
            elif key != "lrbm_baked":
                official.setdefault(key, tensor)
        return official

    def receptive_fields(self) -> list[StageField]:
        """Of the encoder's stages, the bottleneck and the logits, in input voxels."""
        image = Line.of_input()
        fields: list[StageField] = []
        skips: list[Line] = [image.convolved(3).convolved(3)]
        x = image
        for stage, depth in enumerate(self.depths):
            x = x.convolved(2, stride=2, padding=0) if stage else x.convolved(7, stride=2)
            for _ in range(depth):
                x = x.convolved(self.kernel_size)
            fields.append(x.field(f"encoder {stage}"))
            skips.append(x.convolved(3).convolved(3))
        x = skips.pop()
        fields.append(x.field("bottleneck"))
        while skips:
            x = x.upsampled().joined(skips.pop()).convolved(3).convolved(3)
        return [*fields, x.convolved(3).convolved(3).field("logits")]


class _Encoder(nn.Module):
    """Four stages of large depth-wise kernels; channels mix only in the convolutions between them."""

    def __init__(self, in_channels: int, widths: Sequence[int], stages: nn.ModuleList) -> None:
        super().__init__()
        stem = nn.Sequential(
            nn.Conv3d(in_channels, widths[0], 7, stride=2, padding=3), ChannelLayerNorm(widths[0])
        )
        self.downsample_layers = nn.ModuleList([stem])
        for above, below in zip(widths, widths[1:], strict=False):
            self.downsample_layers.append(
                nn.Sequential(ChannelLayerNorm(above), nn.Conv3d(above, below, 2, stride=2))
            )
        self.stages = stages
        self.norm0 = ChannelLayerNorm(widths[0])
        self.norm1 = ChannelLayerNorm(widths[1])
        self.norm2 = ChannelLayerNorm(widths[2])
        self.norm3 = ChannelLayerNorm(widths[3])

    def forward(self, image: Tensor) -> list[Tensor]:
        """Image (batch, channels, k, j, i) → normalised outputs of the stages at 1/2, 1/4, 1/8 and 1/16.

        The norm is for the skip alone: the next stage takes the output as it is.
        """
        features = []
        x = image
        norms = (self.norm0, self.norm1, self.norm2, self.norm3)
        for down, stage, norm in zip(self.downsample_layers, self.stages, norms, strict=True):
            x = stage(down(x))
            features.append(norm(x))
        return features
