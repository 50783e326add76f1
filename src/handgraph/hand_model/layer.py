"""The hand model as a differentiable layer: shape and pose in, mesh and joints out."""

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import ConfigError
from ..skeleton import MANO
from .files import MILLIMETRES, HandModel, Side, load_open_hand

if TYPE_CHECKING:
    from .skinning import SparseWeights

_CHUNK = 16  # hands skinned at once by matrix products: their blended transforms stay in a core's cache
_MANY_HANDS = 32  # from here on the compiled loops pay; fewer hands are skinned by matrix products
_FEW_JOINTS = 6  # per vertex on average: above, matrix products over all joints are faster


class HandMesh(NamedTuple):
    """A posed hand in the frame its global rotation and translation lead to (a camera's, say), mm."""

    vertices_mm: Float[Tensor, "*batch V 3"]
    joints_mm: Float[Tensor, "*batch 21 3"]
    """Canonical order: wrist, then thumb to little finger, each from the palm to the tip."""


class _Chain(NamedTuple):
    """What the gradient of forward kinematics needs; joints in MANO's order, in `homogeneous` by level."""

    negated: Float[Tensor, "n 16 3 1"]
    homogeneous: Float[Tensor, "n 16 4 1"]
    turned: Float[Tensor, "n 16 3 3"]
    local: Float[Tensor, "n 16 4 4"]


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
    _first_entry: Tensor
    _entry_joint: Tensor
    _entry_weight: Tensor
    _joint_template: Tensor
    _joint_directions: Tensor
    _tip_template: Tensor
    _tip_directions: Tensor
    _tip_weights: Tensor
    _identity: Tensor
    _last_row: Tensor
    _mean_pose: Tensor
    _components: Tensor
    _rotation_terms: Tensor
    _joint_order: Tensor
    _tips: Tensor
    _level_of_joint: Tensor
    _parent_level: Tensor

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
        # The same without zeros, vertex by vertex.
        by_vertex = weights[:, by_level]
        entries = by_vertex.nonzero()
        constant("_entry_weight", by_vertex[entries[:, 0], entries[:, 1]])
        self._index("_entry_joint", entries[:, 1].tolist())
        self._index("_first_entry", [0, *(by_vertex != 0).sum(1).cumsum(0).tolist()])
        self._few_joints = len(entries) <= _FEW_JOINTS * vertices
        # Rest joints are affine in the shape, so they need no vertices: (1 + 10) × 112, the negated joints
        # in MANO's order (16·3), then homogeneous by level (16·4).
        rest = (torch.cat([template.unsqueeze(0), shape_directions]) @ regressor.T).mT
        homogeneous = nn.functional.pad(rest[:, by_level], (0, 1))
        homogeneous[0, :, 3] = 1
        rest = torch.cat([-rest.flatten(1), homogeneous.flatten(1)], dim=1)
        constant("_joint_template", rest[0])
        constant("_joint_directions", rest[1:])
        # The fingertips alone, for `joints`.
        constant("_tip_template", template[:, tips].reshape(-1))
        constant("_tip_directions", directions[:, :, tips].reshape(145, 15))
        constant("_tip_weights", weights.T[by_level][:, tips])
        constant("_identity", torch.eye(3))
        constant("_last_row", torch.tensor([0.0, 0.0, 0.0, 1.0]))
        constant("_rotation_terms", torch.tensor(_ROTATION_TERMS))
        mean = torch.zeros(45) if flat_hand_mean else torch.tensor(model.hands_mean)
        constant("_mean_pose", torch.cat([torch.zeros(3), mean]))
        self._has_mean = not flat_hand_mean
        constant("_components", torch.tensor(model.hands_components[:components]))
        # Canonical joint ← (by-level model joints, fingertips thumb…little).
        joint_order = [by_level.index(j) if j < 16 else j for j in MANO.gather.tolist()]
        self._index("_joint_order", joint_order)
        self._index("_tips", tips.tolist())
        self._index("_level_of_joint", [by_level.index(joint) for joint in range(16)])
        self._index("_parent_level", [0] * 6 + list(range(1, 11)))

    def _index(self, name: str, values: list[int]) -> None:
        self.register_buffer(name, torch.tensor(values), persistent=False)

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
        axis_angle = self._axis_angle(pose)
        if _by_hand(axis_angle):
            rotations = _Rotations.apply(axis_angle, self._rotation_terms)
        else:
            rotations = _rotations(axis_angle, self._rotation_terms)
        return self.from_rotations(shape, rotations, translation)

    def joints(
        self,
        shape: Float[Tensor, "*batch 10"],
        pose: Float[Tensor, "*batch P"],
        translation: Float[Tensor, "*batch 3"] | None = None,
    ) -> Float[Tensor, "*batch 21 3"]:
        """The joints alone, mm: what `forward` gives, but skinning five vertices instead of all.

        Plain operators throughout, so that `torch.func` and second derivatives work.
        """
        return self.joints_from_rotations(shape, self.rotations(pose), translation)

    def rotations(self, pose: Float[Tensor, "*batch P"]) -> Float[Tensor, "*batch 16 3 3"]:
        """The rotation matrix of every joint, relative to its parent, from a pose as `forward` takes it."""
        return _rotations(self._axis_angle(pose), self._rotation_terms)

    def _axis_angle(self, pose: Float[Tensor, "*batch P"]) -> Float[Tensor, "*batch 16 3"]:
        if self.pose_space == "pca":
            pose = torch.cat([pose[..., :3], pose[..., 3:] @ self._components], dim=-1)
        if self._has_mean:
            pose = pose + self._mean_pose
        return pose.unflatten(-1, (16, 3))

    def from_rotations(
        self,
        shape: Float[Tensor, "*batch 10"],
        rotations: Float[Tensor, "*batch 16 3 3"],
        translation: Float[Tensor, "*batch 3"] | None = None,
    ) -> HandMesh:
        """As `forward`, from rotation matrices: the global one, then the 15 finger joints (MANO's order)."""
        batch = shape.shape[:-1]
        inputs = (
            shape.reshape(-1, 10),
            rotations.reshape(-1, 16, 3, 3),
            None if translation is None else translation.reshape(-1, 3),
        )
        if _tracing():
            features, transforms, joints, _ = self._chain(*inputs)
            vertices = _skin(features, transforms, self._template, self._directions, self._weights)
            joints = self._in_order(joints, vertices[:, self._tips])
        elif _by_hand(*inputs):
            vertices, joints = _Mesh.apply(self, *inputs)
        else:
            vertices, joints, *_ = self._mesh(*inputs)
        return HandMesh(vertices.reshape(*batch, *vertices.shape[1:]), joints.reshape(*batch, 21, 3))

    def joints_from_rotations(
        self,
        shape: Float[Tensor, "*batch 10"],
        rotations: Float[Tensor, "*batch 16 3 3"],
        translation: Float[Tensor, "*batch 3"] | None = None,
    ) -> Float[Tensor, "*batch 21 3"]:
        """As `joints`, from rotation matrices as `from_rotations` takes them."""
        features, transforms, joints, _ = self._chain(
            shape.reshape(-1, 10),
            rotations.reshape(-1, 16, 3, 3),
            None if translation is None else translation.reshape(-1, 3),
        )
        tips = _skin(features, transforms, self._tip_template, self._tip_directions, self._tip_weights)
        return self._in_order(joints, tips).reshape(*shape.shape[:-1], 21, 3)

    def _in_order(
        self, joints: Float[Tensor, "n 16 3"], tips: Float[Tensor, "n 5 3"]
    ) -> Float[Tensor, "n 21 3"]:
        return torch.cat([joints, tips], dim=1).index_select(1, self._joint_order)

    def _chain(
        self,
        shape: Float[Tensor, "n 10"],
        rotations: Float[Tensor, "n 16 3 3"],
        translation: Float[Tensor, "n 3"] | None,
    ) -> tuple[Float[Tensor, "n 145"], Float[Tensor, "n 16 3 4"], Float[Tensor, "n 16 3"], _Chain]:
        """Forward kinematics: blend-shape features, rest-to-posed transforms and posed joints, by level.

        Last comes what the gradient needs.
        """
        rest = torch.addmm(self._joint_template, shape, self._joint_directions)
        negated = rest[:, :48].unflatten(1, (16, 3, 1))
        homogeneous = rest[:, 48:].unflatten(1, (16, 4, 1))
        turned = rotations - self._identity
        features = torch.cat([shape, turned[:, 1:].flatten(1)], dim=1)
        # A joint's local transform turns rest-space points about the joint's rest position:
        # x ↦ R x + (J − R J). Chained along the tree, these map the rest pose to the posed hand.
        shift = turned @ negated
        last_row = self._last_row.expand(shape.shape[0], 16, 1, 4)
        local = torch.cat([torch.cat([rotations, shift], dim=3), last_row], dim=2)
        root = local[:, :1]
        if translation is not None:
            root = root + nn.functional.pad(translation.unflatten(1, (1, 3, 1)), (3, 0, 0, 1))
        # All fingers at once: wrist, then the first, second and third joints of the five fingers.
        first = root @ local[:, 1::3]
        second = first @ local[:, 2::3]
        third = second @ local[:, 3::3]
        transforms = torch.cat([root, first, second, third], dim=1)[:, :, :3]
        joints = (transforms @ homogeneous).squeeze(3)
        return features, transforms, joints, _Chain(negated, homogeneous, turned, local)

    def _mesh(
        self, shape: Tensor, rotations: Tensor, translation: Tensor | None
    ) -> tuple[Float[Tensor, "n V 3"], Float[Tensor, "n 21 3"], Tensor, Tensor, _Chain]:
        """Vertices and joints, and what their gradient needs: corrected rest hand, transforms, chain."""
        features, transforms, joints, chain = self._chain(shape, rotations, translation)
        if self._sparsely(features):
            from . import skinning  # numba: loaded when first needed, not when imported

            # In memory the hands come last, as `skin` likes it.
            rest = torch.addmm(self._template.unsqueeze(1), self._directions.T, features.T)
            rest = rest.unflatten(0, (3, -1)).permute(2, 0, 1)
            vertices = skinning.skin(self._sparse_weights(), transforms, rest)
        else:
            rest = torch.addmm(self._template, features, self._directions).unflatten(1, (3, -1))
            vertices = self._skin_by_products(transforms, rest)
        joints = self._in_order(joints, vertices.index_select(1, self._tips))
        return vertices, joints, rest, transforms, chain

    def _sparsely(self, like: Tensor) -> bool:
        """Whether to skin by the compiled loops of `skinning`, rather than by matrix products."""
        on_processor = like.device.type == "cpu" and like.dtype in (torch.float32, torch.float64)
        return self._few_joints and on_processor and len(like) >= _MANY_HANDS

    def _sparse_weights(self) -> "SparseWeights":
        from .skinning import SparseWeights

        return SparseWeights(self._first_entry, self._entry_joint, self._entry_weight)

    def _skin_by_products(
        self, transforms: Float[Tensor, "n 16 3 4"], rest: Float[Tensor, "n 3 V"]
    ) -> Float[Tensor, "n V 3"]:
        """As `_skin`, on any device and for any weights.

        The blended transforms are by far the largest intermediate, four times the mesh itself. The batch is
        skinned in chunks, so that they never leave the cache, and the gradient computes them again.
        """
        n, _, size = rest.shape
        matrices = transforms.flatten(2).mT.reshape(-1, 16)
        vertices = rest.new_empty(n, size, 3)
        chunk = min(n, _CHUNK)
        blended = rest.new_empty(chunk * 12, size)
        moved = rest.new_empty(chunk, 3, size)
        for start in range(0, n, _CHUNK):
            end = min(n, start + _CHUNK)
            count = end - start
            torch.mm(matrices[start * 12 : end * 12], self._weights, out=blended[: count * 12])
            x, y, z = rest[start:end].unsqueeze(2).unbind(1)
            by_x, by_y, by_z, shift = blended[: count * 12].view(count, 3, 4, size).unbind(2)
            torch.addcmul(shift, by_x, x, out=moved[:count]).addcmul_(by_y, y).addcmul_(by_z, z)
            vertices[start:end].copy_(moved[:count].mT)
        return vertices

    def _skin_by_products_gradient(
        self,
        transforms: Float[Tensor, "n 16 3 4"],
        rest: Float[Tensor, "n 3 V"],
        by_vertices: Float[Tensor, "n V 3"],
    ) -> tuple[Float[Tensor, "n 16 3 4"], Float[Tensor, "n 3 V"]]:
        """The gradient of `_skin_by_products`, by transforms and rest hand."""
        n, _, size = rest.shape
        matrices = transforms.flatten(2).mT.reshape(-1, 16)
        by_matrices = rest.new_empty(n * 12, 16)
        by_rest = torch.empty_like(rest)
        chunk = min(n, _CHUNK)
        blended = rest.new_empty(chunk * 12, size)
        outer = rest.new_empty(chunk, 3, 4, size)
        for start in range(0, n, _CHUNK):
            end = min(n, start + _CHUNK)
            count = end - start
            # out_i = Σ_k blended_ik rest_k, with rest_3 = 1; so by blended_ik is by_out_i rest_k …
            outer[:count, :, 3] = by_vertices[start:end].mT
            by_out = outer[:count, :, 3:]
            torch.mul(by_out, rest[start:end].unsqueeze(1), out=outer[:count, :, :3])
            torch.mm(outer[:count].view(-1, size), self._weights.T, out=by_matrices[start * 12 : end * 12])
            # … and by rest_k is Σ_i by_out_i blended_ik.
            torch.mm(matrices[start * 12 : end * 12], self._weights, out=blended[: count * 12])
            to_x, to_y, to_z = blended[: count * 12].view(count, 3, 4, size)[:, :, :3].unbind(1)
            x, y, z = by_out.unbind(1)
            torch.mul(to_x, x, out=by_rest[start:end]).addcmul_(to_y, y).addcmul_(to_z, z)
        return by_matrices.view(n, 12, 16).mT.unflatten(2, (3, 4)), by_rest

    def _chain_gradient(
        self,
        chain: _Chain,
        transforms: Float[Tensor, "n 16 3 4"],
        by_features: Float[Tensor, "n 145"],
        by_transforms: Float[Tensor, "n 16 3 4"],
        by_joints: Float[Tensor, "n 16 3"],
    ) -> tuple[Float[Tensor, "n 10"], Float[Tensor, "n 16 3 3"], Float[Tensor, "n 3"]]:
        """The gradient of `_chain`, in reverse: by shape, rotations, translation. Uses up its arguments."""
        negated, homogeneous, turned, local = chain
        by_joints = by_joints.unsqueeze(3)
        by_homogeneous = transforms.mT @ by_joints
        by_transforms = torch.addcmul(by_transforms, by_joints, homogeneous.mT)
        root, first, second, third = by_transforms.split([1, 5, 5, 5], dim=1)
        second += third @ local[:, 3::3].mT
        first += second @ local[:, 2::3].mT
        root += (first @ local[:, 1::3].mT).sum(1, keepdim=True)
        # Of every joint but the wrist, through its parent's rotation.
        parents = transforms[:, :, :, :3].index_select(1, self._parent_level[1:])
        by_local = torch.cat([root, parents.mT @ by_transforms[:, 1:]], dim=1)
        by_local = by_local.index_select(1, self._level_of_joint)
        by_shift = by_local[..., 3:]
        by_negated = turned.mT @ by_shift
        by_rotations = torch.addcmul(by_local[..., :3], by_shift, negated.mT)
        by_rotations[:, 1:] += by_features[:, 10:].unflatten(1, (15, 3, 3))
        by_rest = torch.cat([by_negated.flatten(1), by_homogeneous.flatten(1)], dim=1)
        by_shape = torch.addmm(by_features[:, :10], by_rest, self._joint_directions.T)
        return by_shape, by_rotations, root[:, 0, :, 3]


def _tracing() -> bool:
    """Whether the call is being exported or compiled, which needs plain operators throughout."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def _by_hand(*inputs: Tensor | None) -> bool:
    """Whether a gradient will be asked for that is written by hand here."""
    needed = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    return needed and not _tracing()


def _rotation_terms() -> list[list[float]]:
    """Rotations are quadratic in unit quaternions (w, x, y, z): R (9, row-major) = (q ⊗ q) (16) @ terms.

    The coefficients of q_i q_j and q_j q_i are equal.
    """
    entries: tuple[dict[tuple[int, int], float], ...] = (
        {(0, 0): 1, (1, 1): 1, (2, 2): -1, (3, 3): -1}, {(1, 2): 2, (0, 3): -2}, {(1, 3): 2, (0, 2): 2},
        {(1, 2): 2, (0, 3): 2}, {(0, 0): 1, (1, 1): -1, (2, 2): 1, (3, 3): -1}, {(2, 3): 2, (0, 1): -2},
        {(1, 3): 2, (0, 2): -2}, {(2, 3): 2, (0, 1): 2}, {(0, 0): 1, (1, 1): -1, (2, 2): -1, (3, 3): 1},
    )  # fmt: skip
    terms = [[0.0] * 9 for _ in range(16)]
    for entry, products in enumerate(entries):
        for (i, j), factor in products.items():
            terms[4 * i + j][entry] += factor / 2
            terms[4 * j + i][entry] += factor / 2
    return terms


_ROTATION_TERMS = _rotation_terms()


def rotation_matrices(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation by |v| radians about v (Rodrigues' formula), differentiable everywhere, zero included.

    Values and first derivatives are exact to machine precision, second derivatives to its square root.
    """
    return _rotations(axis_angle, axis_angle.new_tensor(_ROTATION_TERMS))


def _rotations(
    axis_angle: Float[Tensor, "*batch 3"], terms: Float[Tensor, "16 9"]
) -> Float[Tensor, "*batch 3 3"]:
    *_, q = _quaternions(axis_angle)
    products = (q.unsqueeze(0) * q.unsqueeze(1)).flatten(0, 1)
    return (terms.T @ products).T.reshape(*axis_angle.shape, 3)


def _quaternions(axis_angle: Float[Tensor, "*batch 3"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Half the axis-angle u (3, n), |u| (1, n), sin |u| / |u| (1, n) and the quaternion (4, n).

    The unit quaternion (w, x, y, z) is (cos |u|, u sin |u| / |u|). Coordinates come first: all work then runs
    over long contiguous rows.
    """
    half = (axis_angle * 0.5).reshape(-1, 3).T.contiguous()
    # 2⁻⁵⁴ is added, below what a cosine can tell from one, which keeps all derivatives at zero finite. It is
    # written as 1 in another unit, which costs no digit: exporters take so small a constant for none.
    angle = (half.square().sum(0, keepdim=True) * 2.0**54 + 1).sqrt() * 2.0**-27
    sinc = angle.sin() / angle
    return half, angle, sinc, torch.cat([angle.cos(), half * sinc])


class _Rotations(torch.autograd.Function):
    """`_rotations` with its gradient by hand: a third of the operators."""

    @staticmethod
    def forward(ctx: Any, axis_angle: Tensor, terms: Tensor) -> Tensor:
        ctx.save_for_backward(axis_angle, terms)
        return _rotations(axis_angle, terms)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        axis_angle, terms = ctx.saved_tensors
        half, angle, sinc, q = _quaternions(axis_angle)
        # R is quadratic in q with symmetric coefficients: dR = 2 (q ⊗ dq) @ terms.
        by_products = (terms @ gradients[0].reshape(-1, 9).T).unflatten(0, (4, 4))
        by_w, by_xyz = (by_products * q).sum(1).split([1, 3])
        # d sinc |u| = (cos |u| − sinc |u|) / |u|² u·du and d cos |u| = −sinc |u| u·du. Twice and half cancel.
        along = (by_xyz * half).sum(0, keepdim=True) * (q[:1] - sinc) / angle.square() - by_w * sinc
        return torch.addcmul(by_xyz * sinc, along, half).T.reshape(axis_angle.shape), None


def _skin(
    features: Float[Tensor, "n 145"],
    transforms: Float[Tensor, "n 16 3 4"],
    template: Float[Tensor, " C"],
    directions: Float[Tensor, "145 C"],
    weights: Float[Tensor, "16 V"],
) -> Float[Tensor, "n V 3"]:
    """Posed vertices: the corrected rest hand, moved by the weighted mean of its joints' transforms."""
    rest = torch.addmm(template, features, directions).unflatten(1, (1, 3, -1))
    blended = (transforms.flatten(2).mT @ weights).unflatten(1, (3, 4))
    return ((blended[:, :, :3] * rest).sum(2) + blended[:, :, 3]).mT


class _Mesh(torch.autograd.Function):
    """`HandLayer._mesh` with the gradient by hand."""

    @staticmethod
    def forward(
        ctx: Any, layer: HandLayer, shape: Tensor, rotations: Tensor, translation: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        vertices, joints, rest, transforms, chain = layer._mesh(shape, rotations, translation)
        ctx.save_for_backward(rest, transforms, *chain)
        ctx.layer = layer
        return vertices, joints

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        by_vertices, by_joints = gradients
        rest, transforms, *chain = ctx.saved_tensors
        layer: HandLayer = ctx.layer
        by_ordered = torch.zeros_like(by_joints).index_add_(1, layer._joint_order, by_joints)
        by_vertices = by_vertices.clone(memory_format=torch.contiguous_format)
        by_vertices.index_add_(1, layer._tips, by_ordered[:, 16:])
        if layer._sparsely(rest):
            from . import skinning

            weights = layer._sparse_weights()
            by_transforms, by_rest = skinning.skin_gradient(weights, transforms, rest, by_vertices)
        else:
            by_transforms, by_rest = layer._skin_by_products_gradient(transforms, rest, by_vertices)
        by_features = by_rest.flatten(1) @ layer._directions.T
        by_shape, by_rotations, by_translation = layer._chain_gradient(
            _Chain(*chain), transforms, by_features, by_transforms, by_ordered[:, :16]
        )
        return None, by_shape, by_rotations, by_translation if ctx.needs_input_grad[3] else None
