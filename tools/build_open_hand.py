"""Build the open hand and write it as a small npz with MANO's fields.

python tools/build_open_hand.py                # writes src/handgraph/hand_model/open_hand.npz
python tools/build_open_hand.py --out x.npz
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

sys.path.insert(0, str(Path(__file__).parent))
from open_hand_poses import pose_components
from open_hand_remesh import close_wrist, cluster, dual_mesh, flip_edges, is_closed_manifold, relax
from open_hand_skeleton import FINGERS, PARENTS, Skeleton, build_skeleton, joint_limits
from open_hand_skinning import SHAPE_NAMES, joint_regressor, pose_blend_shapes, shape_fields, skinning_weights
from open_hand_surface import Surface, build_surface, dense_mesh

DEFAULT_OUT = Path(__file__).resolve().parents[1] / "src/handgraph/hand_model/open_hand.npz"
CLUSTERS = 1580


def build_mesh(surface: Surface, skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (mm), faces and wrist ring of the rest hand."""
    dense, dense_faces = dense_mesh(surface)
    ends = np.concatenate([skeleton.joints[[j for j in range(1, 16) if j != 13]], skeleton.tips])
    distance = cKDTree(ends).query(dense)[0]
    spacing = np.clip(3.6 + (distance - 12) * 0.12, 3.8, 8.0)
    # Fingertips are small and round: they need the finest mesh.
    spacing = np.minimum(spacing, np.maximum(3.0, 0.3 * cKDTree(skeleton.tips).query(dense)[0]))
    for seed in range(8):
        vertices, faces = dual_mesh(dense, dense_faces, cluster(dense, dense_faces, spacing, CLUSTERS, seed))
        if is_closed_manifold(faces):
            break
    else:
        raise RuntimeError("no seed gave a closed manifold")
    free = np.zeros(len(vertices), dtype=bool)
    faces = flip_edges(vertices, faces)
    vertices = relax(surface, vertices, faces, free, 4)
    faces = flip_edges(vertices, faces)
    vertices = relax(surface, vertices, faces, free, 2)
    vertices, faces, ring = close_wrist(surface, vertices, faces)
    if not is_closed_manifold(faces):
        raise RuntimeError("the closed wrist broke the manifold")
    return vertices, faces, ring


def build() -> dict[str, np.ndarray]:
    """All arrays of the shipped file."""
    skeleton = build_skeleton()
    surface = build_surface(skeleton)
    vertices, faces, ring = build_mesh(surface, skeleton)
    weights = skinning_weights(surface, skeleton, vertices, faces)
    on_vertices, on_joints = shape_fields(skeleton, vertices, faces, weights)
    regressor = joint_regressor(vertices, skeleton.joints, on_vertices, on_joints)
    posedirs = pose_blend_shapes(surface, skeleton, vertices, faces, weights)
    components, mean, std = pose_components(skeleton.frames[1:])
    tips = [
        int(np.linalg.norm(vertices - skeleton.tips[FINGERS.index(f)], axis=1).argmin())
        for f in ("thumb", "index", "middle", "ring", "little")
    ]
    return {
        "v_template": (vertices / 1000).astype(np.float32),
        "shapedirs": (on_vertices / 1000).astype(np.float32),
        "posedirs": (posedirs / 1000).astype(np.float32),
        "J_regressor": regressor.astype(np.float32),
        "weights": weights.astype(np.float32),
        "faces": faces.astype(np.int32),
        "parents": PARENTS.astype(np.int32),
        "hands_components": components.astype(np.float32),
        "hands_mean": mean.astype(np.float32),
        "components_std": std.astype(np.float32),
        "tip_vertices": np.array(tips, dtype=np.int32),
        "joint_axes": skeleton.frames[1:].astype(np.float32),
        "joint_limits": joint_limits().astype(np.float32),
        "shape_names": np.array(SHAPE_NAMES),
        "wrist_ring": ring.astype(np.int32),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    out = parser.parse_args().out
    arrays = build()
    np.savez_compressed(out, **arrays)
    print(f"{out.name}: {len(arrays['v_template'])} vertices, {out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
