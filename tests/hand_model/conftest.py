"""A hand model of random numbers in MANO's shapes: no value of any real model."""

import numpy as np
import pytest

from handgraph.hand_model.files import PARENTS, HandModel


def random_fields(vertices: int = 778, seed: int = 0) -> dict[str, np.ndarray]:
    """MANO's fields with random content: a right hand (fingers towards −x) whose sums and trees are valid."""
    generator = np.random.default_rng(seed)
    weights = generator.random((vertices, 16)) ** 4
    regressor = generator.random((16, vertices)) ** 8
    # Joint j's own vertices lie around an anchor: fingers towards −x, spread over z.
    depth = np.array([0, *([1, 2, 3] * 5)])
    spread = np.array([0, *np.repeat([2, 1, -1, 0, 3], 3)])
    anchors = np.stack([-0.03 * depth, 0 * depth, 0.02 * spread], axis=1)
    owner = np.arange(vertices) % 16
    regressor *= np.where(owner[None] == np.arange(16)[:, None], 1, 1e-3)
    return {
        "v_template": anchors[owner] + generator.normal(0, 0.01, (vertices, 3)),
        "shapedirs": generator.normal(0, 2e-3, (vertices, 3, 10)),
        "posedirs": generator.normal(0, 1e-3, (vertices, 3, 135)),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "weights": weights / weights.sum(1, keepdims=True),
        "f": generator.integers(0, vertices, (2 * vertices - 18, 3)).astype(np.uint32),
        "kintree_table": np.stack([np.array(PARENTS) % 2**32, np.arange(16)]),
        "hands_components": np.linalg.qr(generator.normal(size=(45, 45)))[0],
        "hands_mean": generator.normal(0, 0.2, 45),
    }


def random_model(vertices: int = 778, seed: int = 0) -> HandModel:
    fields = random_fields(vertices, seed)
    faces = fields.pop("f")
    del fields["kintree_table"]
    return HandModel(
        **fields,
        faces=faces,
        parents=np.array(PARENTS),
        tip_vertices=np.linspace(0, vertices - 1, 5).astype(int),
        side="right",
        name="random",
    )


@pytest.fixture(scope="session")
def model() -> HandModel:
    return random_model()


@pytest.fixture(scope="session")
def small_model() -> HandModel:
    return random_model(vertices=40)


@pytest.fixture
def fields() -> dict[str, np.ndarray]:
    """MANO's fields, fresh for each test."""
    return random_fields()
