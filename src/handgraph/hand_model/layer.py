"""The hand model as a differentiable layer: shape and pose in, mesh and joints out."""

from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import ConfigError
from ..skeleton import MANO
from .files import HandModel, Side, load_open_hand

MILLIMETRES = 1000.0  # per metre: models are stored in metres, this layer returns millimetres

_CHUNK = 64  # hands skinned at once: their per-vertex transforms (2.4 MB) stay in a core's cache


class HandMesh(NamedTuple):
    """A posed hand in the frame its global rotation and translation lead to (a camera's, say), mm."""

    vertices_mm: Float[Tensor, "*batch V 3"]
    joints_mm: Float[Tensor, "*batch 21 3"]
    """Canonical order: wrist, then thumb to little finger, each from the palm to the tip."""


class HandLayer(nn.Module):
    """Linear blend skinning with shape- and pose-dependent corrections (MANO, Romero et al. 2017, Eq. 2-4).

    The global rotation turns the hand about its **wrist joint**, as in MANO, and not about the origin:
    with no translation the wrist stays at its rest position, which depends on the shape.

    The 16 model joints are complete with the five `tip_vertices` of the model as fingertips.

    Args:
        model: the hand; by default the shipped open hand.
        side: a model of the other side is mirrored (`HandModel.mirrored`), so the layer takes and gives
            poses and meshes of `side`.
        pose_space: what `pose` holds after the three numbers of the global rotation: "axis_angle", the 45
            of the finger joints in MANO's order, or "pca", `components` coefficients of the model's
            principal poses.
        flat_hand_mean: whether zero pose is the flat hand (True) or the model's mean pose (False).
        components: how many principal poses "pca" uses, 1…45.
        dtype: of the buffers and so of all computation; inputs must have it too.

    Raises:
        ConfigError: an argument outside these values.
    """

    _template: Tensor
    _directions: Tensor
    _weights: Tensor
    _joint_template: Tensor
    _joint_directions: Tensor
    _tip_template: Tensor
    _tip_directions: Tensor
    _tip_weights: Tensor
    _identity: Tensor
    _last_row: Tensor
    _mean_pose: Tensor
    _components: Tensor
    _joint_order: Tensor
    _tips: Tensor

    def __init__(
        self,
        model: HandModel | None = None,
        *,
        side: Side = "right",
        pose_space: Literal["axis_angle", "pca"] = "axis_angle",
        flat_hand_mean: bool = True,
        components: int = 45,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if side not in ("right", "left"):
            raise ConfigError(f"side: found {side!r}, expected 'right' or 'left'")
        if pose_space not in ("axis_angle", "pca"):
            raise ConfigError(f"pose_space: found {pose_space!r}, expected 'axis_angle' or 'pca'")
        if not 1 <= components <= 45:
            raise ConfigError(f"components: found {components}, expected 1 to 45")
        model = load_open_hand() if model is None else model
        self.model = model if model.side == side else model.mirrored()
        self.side: Side = side
        self.pose_space = pose_space
        model = self.model

        def constant(name: str, array: Any) -> None:
            # Not persistent: the arrays are the model file's (for MANO, licensed to the user alone) and
            # must not travel in checkpoints.
            self.register_buffer(name, torch.as_tensor(array).to(dtype).contiguous(), persistent=False)

        vertices = len(model.v_template)
        # Vertices are kept coordinate by coordinate, (3, V), so that all work on them runs over long
        # contiguous rows. One matrix holds shape and pose directions: (10 + 135, 3 V).
        shape_directions = torch.tensor(model.shapedirs).permute(2, 1, 0) * MILLIMETRES
        pose_directions = torch.tensor(model.posedirs).permute(2, 1, 0) * MILLIMETRES
        template = torch.tensor(model.v_template).T * MILLIMETRES
        regressor = torch.tensor(model.J_regressor)
        directions = torch.cat([shape_directions, pose_directions])
        weights = torch.tensor(model.weights)
        tips = torch.tensor(model.tip_vertices)
        constant("_template", template.reshape(-1))
        constant("_directions", directions.reshape(145, 3 * vertices))
        # The kinematic chain yields its transforms by level: wrist, then first, second, third joints.
        by_level = [0, *range(1, 16, 3), *range(2, 16, 3), *range(3, 16, 3)]
        constant("_weights", weights.T[by_level])
        # Rest joints are affine in the shape, so they need no vertices. Homogeneous, first in MANO's
        # order, then by level: (1 + 10, 32·4).
        rest = torch.cat([template.unsqueeze(0), shape_directions]) @ regressor.T
        rest = nn.functional.pad(rest.mT, (0, 1))
        rest[0, :, 3] = 1
        rest = torch.cat([rest, rest[:, by_level]], dim=1).flatten(1)
        constant("_joint_template", rest[0])
        constant("_joint_directions", rest[1:])
        # The fingertips alone, for `joints`.
        constant("_tip_template", template[:, tips].reshape(-1))
        constant("_tip_directions", directions[:, :, tips].reshape(145, 15))
        constant("_tip_weights", weights.T[by_level][:, tips])
        constant("_identity", torch.eye(3))
        constant("_last_row", torch.tensor([0.0, 0.0, 0.0, 1.0]))
        mean = torch.zeros(45) if flat_hand_mean else torch.tensor(model.hands_mean)
        constant("_mean_pose", torch.cat([torch.zeros(3), mean]))
        self._has_mean = not flat_hand_mean
        constant("_components", torch.tensor(model.hands_components[:components]))
        # Canonical joint ← (by-level model joints, fingertips thumb…little).
        joint_order = [by_level.index(j) if j < 16 else j for j in MANO.gather.tolist()]
        self.register_buffer("_joint_order", torch.tensor(joint_order), persistent=False)
        self.register_buffer("_tips", tips, persistent=False)

    def forward(
        self,
        shape: Float[Tensor, "*batch 10"],
        pose: Float[Tensor, "*batch P"],
        translation: Float[Tensor, "*batch 3"] | None = None,
    ) -> HandMesh:
        """Pose the hand.

        Args:
            shape: shape coefficients β.
            pose: the global rotation as axis-angle, then the finger pose in `pose_space`: (*batch, 48) for
                axis-angle (wrist, index 1-3, middle, little, ring, thumb; MANO's order), or
                (*batch, 3 + components).
            translation: mm, added to everything.
        """
        return self.from_rotations(shape, self.rotations(pose), translation)

    def joints(
        self,
        shape: Float[Tensor, "*batch 10"],
        pose: Float[Tensor, "*batch P"],
        translation: Float[Tensor, "*batch 3"] | None = None,
    ) -> Float[Tensor, "*batch 21 3"]:
        """The joints alone, mm: what `forward` gives, but skinning five vertices instead of all."""
        return self.joints_from_rotations(shape, self.rotations(pose), translation)

    def rotations(self, pose: Float[Tensor, "*batch P"]) -> Float[Tensor, "*batch 16 3 3"]:
        """The rotation matrix of every joint, relative to its parent, from a pose as `forward` takes it."""
        if self.pose_space == "pca":
            pose = torch.cat([pose[..., :3], pose[..., 3:] @ self._components], dim=-1)
        if self._has_mean:
            pose = pose + self._mean_pose
        return rotation_matrices(pose.unflatten(-1, (16, 3)))

    def from_rotations(
        self,
        shape: Float[Tensor, "*batch 10"],
        rotations: Float[Tensor, "*batch 16 3 3"],
        translation: Float[Tensor, "*batch 3"] | None = None,
    ) -> HandMesh:
        """As `forward`, from rotation matrices: the global one, then the 15 finger joints (MANO's order)."""
        features, transforms, joints = self._chain(shape, rotations, translation)
        tensors = (features, transforms, self._template, self._directions, self._weights, self._tips)
        # Tracing needs plain operators; everything else is faster with the hand-written gradient.
        tracing = torch.compiler.is_compiling() or torch.jit.is_tracing()
        vertices, tips = _skin_plainly(*tensors) if tracing else _Skin.apply(*tensors)
        batch = shape.shape[:-1]
        return HandMesh(vertices.reshape(*batch, -1, 3), self._in_order(joints, tips).reshape(*batch, 21, 3))

    def joints_from_rotations(
        self,
        shape: Float[Tensor, "*batch 10"],
        rotations: Float[Tensor, "*batch 16 3 3"],
        translation: Float[Tensor, "*batch 3"] | None = None,
    ) -> Float[Tensor, "*batch 21 3"]:
        """As `joints`, from rotation matrices as `from_rotations` takes them."""
        features, transforms, joints = self._chain(shape, rotations, translation)
        tips, _ = _skin_plainly(
            features, transforms, self._tip_template, self._tip_directions, self._tip_weights, None
        )
        return self._in_order(joints, tips).reshape(*shape.shape[:-1], 21, 3)

    def _in_order(self, joints: Float[Tensor, "n 16 3"], tips: Float[Tensor, "n 5 3"]) -> Tensor:
        return torch.cat([joints, tips], dim=1)[:, self._joint_order]

    def _chain(
        self, shape: Tensor, rotations: Tensor, translation: Tensor | None
    ) -> tuple[Float[Tensor, "n 145"], Float[Tensor, "n 12 16"], Float[Tensor, "n 16 3"]]:
        """From shape and rotations: blend-shape features, transforms of rest-space points, posed joints.

        Transforms are 3×4 matrices laid out row by row with the joint last; joints stand in level order.
        """
        shape = shape.reshape(-1, 10)
        rotations = rotations.reshape(-1, 16, 3, 3)
        rest = torch.addmm(self._joint_template, shape, self._joint_directions).unflatten(1, (32, 4, 1))
        turned = rotations - self._identity
        features = torch.cat([shape, turned[:, 1:].flatten(1)], dim=1)
        # A joint's local transform turns rest-space points about the joint's rest position:
        # x ↦ R x + (J − R J). Chained along the tree, these map the rest pose to the posed hand.
        shift = turned @ rest[:, :16, :3]
        last_row = self._last_row.expand(len(shape), 16, 1, 4)
        local = torch.cat([torch.cat([rotations, -shift], dim=3), last_row], dim=2)
        root = local[:, :1]
        if translation is not None:
            root = root + nn.functional.pad(translation.reshape(-1, 1, 3, 1), (3, 0, 0, 1))
        # All fingers at once: wrist, then the first, second and third joints of the five fingers.
        first = root @ local[:, 1::3]
        second = first @ local[:, 2::3]
        third = second @ local[:, 3::3]
        transforms = torch.cat([root, first, second, third], dim=1)[:, :, :3]
        joints = (transforms @ rest[:, 16:]).squeeze(3)
        return features, transforms.flatten(2).mT, joints


def rotation_matrices(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rodrigues' formula, R = cos θ I + (sin θ / θ) [v]ₓ + ((1 − cos θ) / θ²) v vᵀ with θ = |v|.

    Smooth at zero: below |v| = 1e-2 (float32: 1e-1) the two factors are their power series in θ², so that
    first and second derivatives are right there too.
    """
    squared = axis_angle.square().sum(-1, keepdim=True)
    small = squared < _SMALL_SQUARED
    angle = torch.where(small, 1.0, squared).sqrt()
    series_a = 1 - squared / 6 * (1 - squared / 20 * (1 - squared / 42))
    series_b = 0.5 - squared / 24 * (1 - squared / 30 * (1 - squared / 56))
    a = torch.where(small, series_a, angle.sin() / angle)
    b = torch.where(small, series_b, 2 * ((angle / 2).sin() / angle).square())
    x, y, z = (a * axis_angle).unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    outer = (b * axis_angle).unsqueeze(-1) * axis_angle.unsqueeze(-2)
    eye = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    return (1 - b * squared).unsqueeze(-1) * eye + skew + outer


_SMALL_SQUARED = 1e-2


def _skin_plainly(
    features: Float[Tensor, "n 145"],
    transforms: Float[Tensor, "n 12 16"],
    template: Float[Tensor, " 3*V"],
    directions: Float[Tensor, "145 3*V"],
    weights: Float[Tensor, "16 V"],
    tips: Int[Tensor, " 5"] | None,
) -> tuple[Float[Tensor, "n V 3"], Float[Tensor, "n 5 3"]]:
    """Posed vertices, and those of them named by `tips` (none: an empty selection)."""
    rest = torch.addmm(template, features, directions).unflatten(1, (1, 3, -1))
    blended = (transforms.reshape(-1, 16) @ weights).unflatten(0, (-1, 3, 4))
    vertices = ((blended[:, :, :3] * rest).sum(2) + blended[:, :, 3]).mT
    return vertices, vertices[:, :0] if tips is None else vertices[:, tips]


class _Skin(torch.autograd.Function):
    """`_skin_plainly` with its gradient by hand, a chunk of the batch at a time.

    The blended transforms are by far the largest intermediate: five times the mesh itself. Here they never
    leave the cache, forward or backward, where they are computed again rather than kept.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        transforms: Tensor,
        template: Tensor,
        directions: Tensor,
        weights: Tensor,
        tips: Tensor,
    ) -> tuple[Tensor, Tensor]:
        n, size = len(features), weights.shape[1]
        transforms = transforms.contiguous()
        rest = features.new_empty(n, 3 * size)
        vertices = features.new_empty(n, size, 3)
        blended = features.new_empty(min(n, _CHUNK) * 12, size)
        moved = features.new_empty(min(n, _CHUNK), 3, size)
        for start in range(0, n, _CHUNK):
            part = slice(start, start + _CHUNK)
            count = len(features[part])
            torch.addmm(template, features[part], directions, out=rest[part])
            x, y, z = rest[part].view(count, 3, 1, size).unbind(1)
            torch.mm(transforms[part].view(-1, 16), weights, out=blended[: count * 12])
            by_x, by_y, by_z, shift = blended[: count * 12].view(count, 3, 4, size).unbind(2)
            out = torch.addcmul(shift, by_x, x, out=moved[:count]).addcmul_(by_y, y).addcmul_(by_z, z)
            vertices[part].copy_(out.mT)
        ctx.save_for_backward(rest, transforms, directions, weights, tips)
        return vertices, vertices[:, tips]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        by_vertices, by_tips = gradients
        rest, transforms, directions, weights, tips = ctx.saved_tensors
        n, size = len(rest), weights.shape[1]
        by_features = rest.new_empty(n, len(directions))
        by_transforms = rest.new_empty(n, 12, 16)
        chunk = min(n, _CHUNK)
        blended = rest.new_empty(chunk * 12, size)
        outer = rest.new_empty(chunk, 3, 4, size)
        by_rest = rest.new_empty(chunk, 3, size)
        for start in range(0, n, _CHUNK):
            part = slice(start, start + _CHUNK)
            count = len(rest[part])
            gradient = outer[:count, :, 3]
            gradient.copy_(by_vertices[part].mT)
            gradient.index_add_(2, tips, by_tips[part].mT)
            # d out_i / d transform_ik = weight · rest_k (k < 3) or weight (k = 3)
            torch.mul(gradient.unsqueeze(2), rest[part].view(count, 1, 3, size), out=outer[:count, :, :3])
            torch.mm(outer[:count].view(-1, size), weights.T, out=by_transforms[part].view(-1, 16))
            # d out_i / d rest_k = blended_ik
            torch.mm(transforms[part].view(-1, 16), weights, out=blended[: count * 12])
            rows = blended[: count * 12].view(count, 3, 4, size)[:, :, :3].unbind(1)
            by_x, by_y, by_z = gradient.unsqueeze(2).unbind(1)
            out = (
                torch.mul(rows[0], by_x, out=by_rest[:count]).addcmul_(rows[1], by_y).addcmul_(rows[2], by_z)
            )
            torch.mm(out.view(count, -1), directions.T, out=by_features[part])
        return by_features, by_transforms, None, None, None, None
