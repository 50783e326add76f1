"""The layer against MANO's equations written as loops, against smplx, and against finite differences."""

import dataclasses
import math

import numpy as np
import pytest
import roma
import torch
from torch import Tensor

from handgraph import ConfigError
from handgraph.hand_model import HandLayer, HandModel, load_open_hand, rotation_matrices
from handgraph.skeleton import JOINT_NAMES

# Canonical place of MANO's 16 joints, written out rather than taken from the code under test.
CANONICAL_OF_MANO = [0, 5, 6, 7, 9, 10, 11, 17, 18, 19, 13, 14, 15, 1, 2, 3]


def inputs(*batch: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = torch.randn(*batch, 10, generator=generator, dtype=dtype)
    pose = 0.7 * torch.randn(*batch, 48, generator=generator, dtype=dtype)
    translation = 100 * torch.randn(*batch, 3, generator=generator, dtype=dtype)
    return shape, pose, translation


def loop_lbs(model: HandModel, beta: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """MANO (Romero et al. 2017, Eq. 2-4; Loper et al. 2015, Eq. 2-4) for one hand as loops, metres."""

    def rodrigues(v: np.ndarray) -> np.ndarray:
        angle = math.sqrt(float(v @ v))
        if angle == 0:
            return np.eye(3)
        x, y, z = v / angle
        skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        return np.eye(3) + math.sin(angle) * skew + (1 - math.cos(angle)) * skew @ skew

    rotations = [rodrigues(theta[3 * j : 3 * j + 3]) for j in range(16)]
    shaped = model.v_template + model.shapedirs @ beta
    rest_joints = model.J_regressor @ shaped
    feature = np.concatenate([(rotation - np.eye(3)).ravel() for rotation in rotations[1:]])
    posed = shaped + model.posedirs @ feature
    world: list[np.ndarray] = []
    for j in range(16):
        parent = model.parents[j]
        transform = np.eye(4)
        transform[:3, :3] = rotations[j]
        transform[:3, 3] = rest_joints[j] - (rest_joints[parent] if j else 0)
        world.append(world[parent] @ transform if j else transform)
    vertices = np.zeros_like(posed)
    for v in range(len(posed)):
        for j in range(16):
            about_joint = np.append(posed[v] - rest_joints[j], 1)
            vertices[v] += model.weights[v, j] * (world[j] @ about_joint)[:3]
    return vertices, np.stack([transform[:3, 3] for transform in world])


def test_forward_equals_mano_written_as_loops(model: HandModel) -> None:
    shape, pose, translation = inputs(2)
    mesh = HandLayer(model, dtype=torch.float64)(shape, pose, translation)
    for b in range(2):
        vertices, joints = loop_lbs(model, shape[b].numpy(), pose[b].numpy())
        moved = translation[b].numpy()
        np.testing.assert_allclose(mesh.vertices_mm[b], 1000 * vertices + moved, atol=1e-9)
        np.testing.assert_allclose(mesh.joints_mm[b, CANONICAL_OF_MANO], 1000 * joints + moved, atol=1e-9)
        tips = 1000 * vertices[model.tip_vertices] + moved
        np.testing.assert_allclose(mesh.joints_mm[b, [4, 8, 12, 16, 20]], tips, atol=1e-9)


@pytest.mark.parametrize("batch", [1, 3, 131])  # 131: two full chunks of the batch and a rest
def test_values_and_gradients_equal_smplx(model: HandModel, batch: int) -> None:
    lbs = pytest.importorskip("smplx.lbs").lbs
    layer = HandLayer(model, dtype=torch.float64)
    shape, pose, _ = inputs(batch)
    shape.requires_grad_()
    pose.requires_grad_()
    vertices, joints = lbs(
        shape,
        pose,
        torch.tensor(model.v_template)[None],
        torch.tensor(model.shapedirs),
        torch.tensor(model.posedirs).reshape(-1, 135).T,
        torch.tensor(model.J_regressor),
        torch.tensor(model.parents),
        torch.tensor(model.weights),
    )
    mesh = layer(shape, pose)
    # smplx adds 1e-8 to every axis-angle; hence not closer.
    torch.testing.assert_close(mesh.vertices_mm, 1000 * vertices, atol=1e-5, rtol=0)
    torch.testing.assert_close(mesh.joints_mm[:, CANONICAL_OF_MANO], 1000 * joints, atol=1e-5, rtol=0)
    along, along_joints = torch.randn_like(vertices), torch.randn_like(joints)
    theirs = torch.autograd.grad(
        1000 * ((vertices * along).sum() + (joints * along_joints).sum()), (shape, pose)
    )
    ours = torch.autograd.grad(
        (mesh.vertices_mm * along).sum() + (mesh.joints_mm[:, CANONICAL_OF_MANO] * along_joints).sum(),
        (shape, pose),
    )
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, rtol=0, atol=1e-6 * reference.abs().max().item())


def of_few_joints(model: HandModel) -> HandModel:
    """The model with one to four joints per vertex."""
    weights = np.zeros_like(model.weights)
    for v, row in enumerate(model.weights):
        kept = np.argsort(row)[-(v % 4 + 1) :]
        weights[v, kept] = row[kept] / row[kept].sum()
    return dataclasses.replace(model, weights=weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threads", [1, 2])
def test_compiled_skinning_equals_matrix_products(
    small_model: HandModel, dtype: torch.dtype, threads: int
) -> None:
    """Values and gradients; 133 hands are no whole number of blocks; the gradients are strided."""
    model = of_few_joints(small_model)
    compiled, plain = HandLayer(model, dtype=dtype), HandLayer(model, dtype=dtype)
    plain._few_joints = False
    arguments = [x.to(dtype).requires_grad_() for x in inputs(133)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        results = []
        for layer in (compiled, plain):
            mesh = layer(*arguments)
            assert layer._sparsely(mesh.vertices_mm) == (layer is compiled)
            along = torch.linspace(-1, 1, 40 * 3 * 133, dtype=dtype).cos().view(3, 40, 133).permute(2, 1, 0)
            loss = (mesh.vertices_mm * along).sum() + mesh.joints_mm.square().sum() / 1000
            results.append((*mesh, *torch.autograd.grad(loss, arguments)))
    finally:
        torch.set_num_threads(before)
    relative = 2e-5 if dtype == torch.float32 else 1e-13
    for mine, reference in zip(*results, strict=True):
        torch.testing.assert_close(mine, reference, rtol=0, atol=relative * reference.abs().max().item())


def test_compiled_gradient_equals_finite_differences(small_model: HandModel) -> None:
    layer = HandLayer(of_few_joints(small_model), dtype=torch.float64)
    arguments = [x.requires_grad_() for x in inputs(33)]
    torch.autograd.gradcheck(lambda *x: tuple(layer(*x)), arguments, fast_mode=True)


def test_inputs_need_not_be_contiguous(small_model: HandModel) -> None:
    layer = HandLayer(of_few_joints(small_model), dtype=torch.float64)
    arguments = inputs(40)
    strided = [x.T.contiguous().T for x in arguments]
    torch.testing.assert_close(layer(*strided).vertices_mm, layer(*arguments).vertices_mm)


def test_models_of_many_joints_per_vertex_are_skinned_by_matrix_products(model: HandModel) -> None:
    assert not HandLayer(model)._sparsely(torch.zeros(64, 1))
    assert HandLayer(load_open_hand())._sparsely(torch.zeros(64, 1))


def test_hand_written_gradient_equals_finite_differences(small_model: HandModel) -> None:
    layer = HandLayer(small_model, dtype=torch.float64)
    arguments = [x.requires_grad_() for x in inputs(2)]
    torch.autograd.gradcheck(lambda *x: tuple(layer(*x)), arguments, fast_mode=True)
    torch.autograd.gradcheck(lambda *x: layer.joints(*x), arguments, fast_mode=True)


def test_gradient_by_rotation_matrices_equals_finite_differences(small_model: HandModel) -> None:
    layer = HandLayer(small_model, dtype=torch.float64)
    shape, pose, translation = inputs(2)
    rotations = layer.rotations(pose)
    arguments = [x.requires_grad_() for x in (shape, rotations, translation)]
    torch.autograd.gradcheck(lambda *x: tuple(layer.from_rotations(*x)), arguments, fast_mode=True)


def test_gradient_at_the_flat_hand_is_finite_and_right(small_model: HandModel) -> None:
    layer = HandLayer(small_model, dtype=torch.float64)
    shape, _, _ = inputs(1)
    pose = torch.zeros(1, 48, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda x: layer(shape, x).vertices_mm, pose, fast_mode=True)
    in_float32 = HandLayer(small_model)(shape.float(), pose.float()).vertices_mm.sum()
    (gradient,) = torch.autograd.grad(in_float32, pose)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


def test_only_what_needs_a_gradient_gets_one(small_model: HandModel) -> None:
    layer = HandLayer(small_model)
    shape, pose, translation = inputs(2, dtype=torch.float32)
    assert not layer(shape, pose, translation).vertices_mm.requires_grad
    translation.requires_grad_()
    layer(shape, pose, translation).joints_mm.sum().backward()
    torch.testing.assert_close(translation.grad, torch.full((2, 3), 21.0))


def test_joints_alone_equal_those_of_the_mesh(model: HandModel) -> None:
    layer = HandLayer(model, dtype=torch.float64)
    arguments = inputs(5)
    torch.testing.assert_close(layer.joints(*arguments), layer(*arguments).joints_mm)


def test_joints_work_under_torch_func(small_model: HandModel) -> None:
    layer = HandLayer(small_model, dtype=torch.float64)
    shape, pose, _ = (x[0] for x in inputs(1))
    forward = torch.func.jacfwd(lambda x: layer.joints(shape, x))(pose)
    backward = torch.autograd.functional.jacobian(lambda x: layer(shape, x).joints_mm, pose)
    torch.testing.assert_close(forward, backward)


@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,)])
def test_any_leading_dimensions(small_model: HandModel, batch: tuple[int, ...]) -> None:
    layer = HandLayer(small_model, dtype=torch.float64)
    shape, pose, translation = inputs(*batch)
    mesh = layer(shape, pose, translation)
    assert mesh.vertices_mm.shape == (*batch, 40, 3)
    assert mesh.joints_mm.shape == (*batch, 21, 3)
    flat = layer(shape.reshape(-1, 10), pose.reshape(-1, 48), translation.reshape(-1, 3))
    torch.testing.assert_close(mesh.vertices_mm.reshape(-1, 40, 3), flat.vertices_mm)
    assert layer.joints(shape, pose).shape == (*batch, 21, 3)


def test_convention_global_rotation_turns_about_the_wrist(model: HandModel) -> None:
    layer = HandLayer(model, dtype=torch.float64)
    shape, pose, _ = inputs(1)
    unturned = pose.clone()
    unturned[:, :3] = 0
    before, after = layer(shape, unturned), layer(shape, pose)
    wrist = before.joints_mm[:, :1]
    assert wrist.norm() > 1  # the wrist is not at the origin, so the two readings differ
    torch.testing.assert_close(after.joints_mm[:, :1], wrist)
    turn = rotation_matrices(pose[:, :3]).mT
    torch.testing.assert_close(after.vertices_mm, (before.vertices_mm - wrist) @ turn + wrist)
    assert (after.vertices_mm - before.vertices_mm @ turn).abs().max() > 1  # about the origin: wrong


def test_convention_translation_is_in_millimetres(model: HandModel) -> None:
    layer = HandLayer(model, dtype=torch.float64)
    shape, pose, _ = inputs(1)
    step = torch.tensor([[10.0, -20.0, 300.0]], dtype=torch.float64)
    plain, moved = layer(shape, pose), layer(shape, pose, step)
    torch.testing.assert_close(moved.vertices_mm - plain.vertices_mm, step.expand(778, 3)[None])
    torch.testing.assert_close(moved.joints_mm - plain.joints_mm, step.expand(21, 3)[None])


def test_convention_left_hand_negates_y_and_z_of_axis_angles(model: HandModel) -> None:
    """A left layer gives the mirror image (in x) for the mirrored pose, and only then."""
    shape, pose, _ = inputs(2)
    mirror = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    right = HandLayer(model, dtype=torch.float64)(shape, pose)
    layer = HandLayer(model, side="left", dtype=torch.float64)
    assert layer.model.side == "left"
    left = layer(shape, pose * torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64).repeat(16))
    torch.testing.assert_close(left.joints_mm, right.joints_mm * mirror)
    torch.testing.assert_close(left.vertices_mm, right.vertices_mm * mirror)
    for wrong in ([1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]):
        pose_as_is = pose * torch.tensor(wrong, dtype=torch.float64).repeat(16)
        assert (layer(shape, pose_as_is).joints_mm - right.joints_mm * mirror).abs().max() > 5


def test_mirroring_twice_is_the_same_hand_and_keeps_faces_outward(model: HandModel) -> None:
    mirrored = model.mirrored()
    again = mirrored.mirrored()
    for field in ("v_template", "shapedirs", "posedirs", "faces", "hands_components", "hands_mean"):
        np.testing.assert_array_equal(getattr(again, field), getattr(model, field))

    def volume(hand: HandModel) -> float:
        a, b, c = (hand.v_template[hand.faces[:, i]] for i in range(3))
        return float((a * np.cross(b, c)).sum() / 6)

    assert volume(model) == pytest.approx(volume(mirrored))  # not reversing the faces would flip the sign


def test_open_hand_is_a_right_hand_in_the_frame_promised() -> None:
    """Fingers towards −x, thumb towards +z, and flexion turns the fingers towards the palm, −y."""
    model = load_open_hand()
    layer = HandLayer(dtype=torch.float64)
    zero = torch.zeros(10, dtype=torch.float64), torch.zeros(48, dtype=torch.float64)
    flat = layer.joints(*zero)
    wrist, thumb_tip, middle_tip = (
        flat[JOINT_NAMES.index(name)] for name in ("wrist", "thumb_tip", "middle_tip")
    )
    assert (middle_tip - wrist)[0] < -100
    assert thumb_tip[2] > middle_tip[2]
    assert model.joint_axes is not None
    pose = zero[1].clone()
    knuckle = 4  # MANO's middle1
    pose[3 * knuckle : 3 * knuckle + 3] = 0.5 * torch.tensor(model.joint_axes[knuckle - 1, 0])
    closed = layer.joints(zero[0], pose)[JOINT_NAMES.index("middle_tip")]
    assert (closed - middle_tip)[1] < -10
    # Read with the opposite sign the finger would bend backwards.
    opened = layer.joints(zero[0], -pose)[JOINT_NAMES.index("middle_tip")]
    assert (opened - middle_tip)[1] > 10


def test_principal_poses(model: HandModel) -> None:
    shape, _, _ = inputs(2)
    generator = torch.Generator().manual_seed(1)
    pose = torch.randn(2, 3 + 6, generator=generator, dtype=torch.float64)
    fingers = pose[:, 3:] @ torch.tensor(model.hands_components[:6])
    plain = HandLayer(model, dtype=torch.float64)
    pca = HandLayer(model, pose_space="pca", components=6, dtype=torch.float64)
    full = torch.cat([pose[:, :3], fingers], dim=1)
    torch.testing.assert_close(pca(shape, pose).vertices_mm, plain(shape, full).vertices_mm)
    about_mean = HandLayer(model, pose_space="pca", components=6, flat_hand_mean=False, dtype=torch.float64)
    full = torch.cat([pose[:, :3], fingers + torch.tensor(model.hands_mean)], dim=1)
    torch.testing.assert_close(about_mean(shape, pose).vertices_mm, plain(shape, full).vertices_mm)
    assert (pca(shape, pose).vertices_mm - about_mean(shape, pose).vertices_mm).abs().max() > 1


def test_float32_is_close_to_float64(model: HandModel) -> None:
    exact = HandLayer(model, dtype=torch.float64)(*inputs(4))
    rounded = HandLayer(model)(*(x.float() for x in inputs(4)))
    assert rounded.vertices_mm.dtype == torch.float32
    torch.testing.assert_close(rounded.vertices_mm.double(), exact.vertices_mm, atol=1e-3, rtol=0)


def test_exports_and_the_exported_graph_agrees(small_model: HandModel) -> None:
    layer = HandLayer(small_model)
    arguments = inputs(2, dtype=torch.float32)
    exported = torch.export.export(layer, arguments).module()(*arguments)
    torch.testing.assert_close(exported.vertices_mm, layer(*arguments).vertices_mm, atol=1e-3, rtol=0)
    torch.testing.assert_close(exported.joints_mm, layer(*arguments).joints_mm, atol=1e-3, rtol=0)


def test_model_arrays_stay_out_of_checkpoints(small_model: HandModel) -> None:
    assert HandLayer(small_model).state_dict() == {}


def test_rotation_matrices_agree_with_roma() -> None:
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(1000, 3, generator=generator, dtype=torch.float64)
    v = v / v.norm(dim=1, keepdim=True) * torch.linspace(0, 12, 1000, dtype=torch.float64)[:, None]
    torch.testing.assert_close(rotation_matrices(v), roma.rotvec_to_rotmat(v), atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", [0.0, 1e-9, 1e-6, 1e-3, 3.14159, 6.28318])
def test_rotation_derivatives_hold_from_zero_to_a_full_turn(size: float) -> None:
    direction = torch.tensor([[0.48, -0.6, 0.64]], dtype=torch.float64)
    v = (size * direction).requires_grad_()
    torch.autograd.gradcheck(rotation_matrices, v)

    def entry(x: Tensor) -> Tensor:
        return rotation_matrices(x)[0, 0, 1]

    hessian = torch.autograd.functional.hessian(entry, v)[0, :, 0]
    # The second derivative by differences of the first: at zero, exactly ∂²R₀₁/∂x∂y = ½.
    step = 1e-4
    for k in range(3):
        shift = step * torch.eye(3, dtype=torch.float64)[k]
        ahead, behind = (
            torch.autograd.functional.jacobian(
                lambda x: rotation_matrices(x)[0, 0, 1], v.detach() + sign * shift
            )
            for sign in (1, -1)
        )
        torch.testing.assert_close(hessian[k], (ahead - behind)[0] / (2 * step), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"side": "both"}, "side: found 'both', expected 'right' or 'left'"),
        ({"pose_space": "euler"}, "pose_space: found 'euler', expected 'axis_angle' or 'pca'"),
        ({"components": 46}, "components: found 46, expected 1 to 45"),
    ],
)
def test_wrong_arguments_say_what_is_expected(
    small_model: HandModel, arguments: dict[str, object], message: str
) -> None:
    from handgraph.hand_model import layer as module

    # Past the annotation checks that run while testing.
    build = getattr(module.HandLayer.__init__, "__wrapped__", module.HandLayer.__init__)
    with pytest.raises(ConfigError) as caught:
        build(torch.nn.Module.__new__(module.HandLayer), small_model, **arguments)
    assert str(caught.value) == message
