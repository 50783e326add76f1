"""The hand layer beside smplx's `lbs`, on the same arrays in the same run.

    python benchmarks/hand_layer.py --json

Ours gives vertices and 21 joints, smplx vertices and 16 joints. Both get float32 shape and axis-angle pose
for the open hand's arrays; gradients are for both, from random gradients by all outputs. Set
OMP_NUM_THREADS to choose the number of threads.
"""

import torch
from _bench import arguments, interleaved_ms, machine, report
from smplx.lbs import lbs

from handgraph.hand_model import HandLayer, load_open_hand
from handgraph.skeleton import MANO

REPEATS = {1: 200, 64: 40, 1024: 10}
MILLIMETRES = 1000.0


def main() -> None:
    options = arguments(__doc__ or "")
    torch.manual_seed(0)
    model = load_open_hand()
    layer = HandLayer(model)

    def tensor(array: object) -> torch.Tensor:
        return torch.tensor(array, dtype=torch.float32)

    constants = {
        "v_template": tensor(model.v_template)[None],
        "shapedirs": tensor(model.shapedirs),
        "posedirs": tensor(model.posedirs.reshape(-1, 135).T.copy()),
        "J_regressor": tensor(model.J_regressor),
        "parents": torch.tensor(model.parents),
        "lbs_weights": tensor(model.weights),
    }
    canonical = [j for j in MANO.canonical if j % 4 or j == 0]  # MANO's 16 joints among the 21

    rows = []
    for batch, repeats in REPEATS.items():
        shape, pose = torch.randn(batch, 10), 0.5 * torch.randn(batch, 48)
        by_vertices, by_joints = torch.randn(batch, len(model.v_template), 3), torch.randn(batch, 21, 3)
        variables = shape.clone().requires_grad_(), pose.clone().requires_grad_()

        def ours(shape: torch.Tensor = shape, pose: torch.Tensor = pose) -> tuple[torch.Tensor, ...]:
            with torch.no_grad():
                return layer(shape, pose)

        def theirs(shape: torch.Tensor = shape, pose: torch.Tensor = pose) -> tuple[torch.Tensor, ...]:
            with torch.no_grad():
                return lbs(shape, pose, **constants)

        def ours_with_gradient(
            variables: tuple[torch.Tensor, ...] = variables,
            by: tuple[torch.Tensor, ...] = (by_vertices, by_joints),
        ) -> tuple[torch.Tensor, ...]:
            return torch.autograd.grad(layer(*variables), variables, by)

        def theirs_with_gradient(
            variables: tuple[torch.Tensor, ...] = variables,
            by: tuple[torch.Tensor, ...] = (by_vertices, by_joints[:, :16]),
        ) -> tuple[torch.Tensor, ...]:
            return torch.autograd.grad(lbs(*variables, **constants), variables, by)

        (vertices_mm, joints_mm), (vertices, joints) = ours(), theirs()
        difference = max(
            (vertices_mm / MILLIMETRES - vertices).abs().max().item(),
            (joints_mm[:, canonical] / MILLIMETRES - joints).abs().max().item(),
        )
        for what, calls in {
            "forward": {"ours": ours, "smplx": theirs},
            "forward_backward": {"ours": ours_with_gradient, "smplx": theirs_with_gradient},
        }.items():
            count = max(1, round(repeats * options.repeats))
            times = interleaved_ms(calls, count)
            rows.append(
                {
                    "batch": batch,
                    "what": what,
                    "repeats": count,
                    "ours_ms": times["ours"]["median"],
                    "smplx_ms": times["smplx"]["median"],
                    "ratio": times["smplx"]["median"] / times["ours"]["median"],
                    "ours_min_ms": times["ours"]["min"],
                    "smplx_min_ms": times["smplx"]["min"],
                    "ratio_of_min": times["smplx"]["min"] / times["ours"]["min"],
                    "max_abs_diff_m": difference,
                }
            )
    document = {
        "benchmark": "hand_layer",
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "vertices": len(model.v_template),
        "rows": rows,
    }
    report(document, options.json)


if __name__ == "__main__":
    main()
