"""Stacked hourglass (Newell et al. 2016): image to heat maps, each hourglass seeing what the last one said.

Two forms. "paper" is the published layout out of bottleneck residuals: four levels of constant width. Its
residuals normalise after each convolution, as JGR-P2O's do, not before it. "compact" is ours for CPUs, where
a bottleneck's 1×1 convolutions wait for memory: blocks of two 3×3, and maps that widen as they shrink.
"""

from dataclasses import dataclass
from typing import Literal, cast, get_args

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from handgraph.errors import ConfigError
from handgraph.networks.cpm import map_layer
from handgraph.networks.heatmaps import distributions
from handgraph.networks.hourglass import ConvNorm, Hourglass, Residual, Stem

Form = Literal["paper", "compact"]


@dataclass(frozen=True)
class HourglassShape:
    """How many hourglasses of which size. Raises `ConfigError` for what cannot be built."""

    stacks: int = 8
    """Hourglasses, each with its own supervision."""
    width: int = 256
    """Channels of the largest maps, a quarter of the image's side."""
    depth: int = 4
    """How often an hourglass halves its maps."""
    form: Form = "paper"
    growth: int = 0
    """Channels that each halving adds; only the compact form grows."""
    distribution: bool = False
    """Maps are `heatmaps.distributions`, for training with their cross-entropy; the papers' are free."""

    def __post_init__(self) -> None:
        if self.stacks < 1:
            raise ConfigError(f"stacks is {self.stacks}, expected 1 or more")
        if self.form not in get_args(Form):
            raise ConfigError(f"form is '{self.form}', expected one of {', '.join(get_args(Form))}")
        if self.width < 8 or self.width % 8:
            raise ConfigError(f"width is {self.width}, expected a multiple of 8")
        if self.depth < 1:
            raise ConfigError(f"depth is {self.depth}, expected 1 or more")
        if self.growth < 0 or (self.growth and self.form == "paper"):
            raise ConfigError(f"growth is {self.growth}, expected 0 or more channels, and 0 for form 'paper'")

    @property
    def stride(self) -> int:
        """Pixels of the image to a cell of the maps."""
        return 4

    def check_input(self, size: int) -> None:
        """Raise ConfigError for an image of a side that cannot be halved so often."""
        unit = self.stride * 2**self.depth
        if size < unit or size % unit:
            raise ConfigError(
                f"input_size is {size}, expected a multiple of {unit} for {self.depth} halvings"
            )

    def build(self, maps: int) -> "StackedHourglass":
        """The network with `maps` output maps, freshly initialised."""
        return StackedHourglass(maps, self)


class StackedHourglass(nn.Module):
    """Image (b, 3, s, s) → `maps` heat maps (s/4 a side) from each hourglass; the last is the answer."""

    def __init__(self, maps: int, shape: HourglassShape) -> None:
        super().__init__()
        width = shape.width
        compact = shape.form == "compact"
        self.width = width
        self.distribution = shape.distribution
        self.stem: nn.Module = CompactStem(width) if compact else Stem(3, width)
        self.hourglasses = nn.ModuleList(
            CompactHourglass([width + level * shape.growth for level in range(shape.depth + 1)])
            if compact
            else Hourglass(width, shape.depth)
            for _ in range(shape.stacks)
        )
        self.residuals = nn.ModuleList(
            Block(width, width) if compact else Residual(width, width) for _ in range(shape.stacks)
        )
        self.features = nn.ModuleList(ConvNorm(width, width) for _ in range(shape.stacks))
        self.heads = nn.ModuleList(map_layer(width, maps) for _ in range(shape.stacks))
        # What the next hourglass sees: its predecessor's input, features and maps.
        self.feed_features = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(shape.stacks - 1))
        self.feed_maps = nn.ModuleList(nn.Conv2d(maps, width, 1) for _ in range(shape.stacks - 1))

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b n h4 w4"], ...]:
        return self.describe(image)[0]

    def describe(
        self, image: Float[Tensor, "b 3 h w"], before: Float[Tensor, "b m h4 w4"] | None = None
    ) -> tuple[tuple[Float[Tensor, "b n h4 w4"], ...], Float[Tensor, "b c h4 w4"]]:
        """The maps of `forward`, and the features that the last of them were read from.

        `before`: features and last maps of an earlier call, as channels one after the other. Then the image
        is not looked at again, since what a frozen network sees can be kept.
        """
        if before is not None:
            features, last = before.float().tensor_split([self.width], dim=1)
            return (last,), features
        x = self.stem(image)
        maps, features = [], x
        for stack, hourglass in enumerate(self.hourglasses):
            features = self.features[stack](self.residuals[stack](hourglass(x)))
            maps.append(self.heads[stack](features))
            if stack < len(self.feed_maps):
                x = x + self.feed_features[stack](features) + self.feed_maps[stack](maps[-1])
        read = tuple(distributions(one) for one in maps) if self.distribution else tuple(maps)
        return read, features


class Block(nn.Module):
    """Two 3×3 convolutions added to the input; ReLU after the sum."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, outputs, 3)
        self.second = ConvNorm(outputs, outputs, 3, relu=False)
        self.shortcut = nn.Identity() if inputs == outputs else ConvNorm(inputs, outputs, relu=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        return (self.second(self.first(x)) + self.shortcut(x)).relu_()


class CompactStem(nn.Module):
    """Image to a quarter of its side: 5×5/2 to half of `width`, 3×3/2, one block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvNorm(3, width // 2, 5, stride=2),
            ConvNorm(width // 2, width, 3, stride=2),
            Block(width, width),
        )

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h4 w4"]:
        return cast(Tensor, self.layers(image))


class CompactHourglass(nn.Module):
    """Hourglass of `Block`s; `widths` are the channels of each size of map, the largest first.

    A level is one block beside, and below it max-pool 2, a block, the next level, a 1×1 convolution to this
    level's width, nearest upsampling. The smallest maps have one block more.
    """

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        width, wider = widths[:2]
        self.beside = Block(width, width)
        self.pool = nn.MaxPool2d(2)
        self.down = Block(width, wider)
        self.below: nn.Module = CompactHourglass(widths[1:]) if len(widths) > 2 else Block(wider, wider)
        self.up = ConvNorm(wider, width)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        low = self.up(self.below(self.down(self.pool(x))))
        upsampled: Tensor = interpolate(low, scale_factor=2.0, mode="nearest")
        return cast(Tensor, self.beside(x)) + upsampled
