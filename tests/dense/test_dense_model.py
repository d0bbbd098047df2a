"""The dense network: against a naive one, in numbers and in gradients; its size against the simulator's count."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
from torch.nn import functional  # noqa: E402

from persia.dense import DenseModel, DenseSpec, RawBags, build, train_batch  # noqa: E402
from persia.dense.interaction import DotInteraction  # noqa: E402
from persia.dense.model import sum_bags  # noqa: E402
from persia.dense.tower import Tower  # noqa: E402
from persia.scenario import load_scenario  # noqa: E402
from simulator.costs import dense_layer_parameters, dense_layer_widths  # noqa: E402

DLRM = DenseSpec(dense_features=5, groups=((3, 8, "sum"), (2, 8, "mean")), layers=(24, 16), architecture="dlrm", seed=7)
MLP = DenseSpec(dense_features=5, groups=((3, 8, "sum"), (2, 4, "mean")), layers=(24, 16), seed=7)
PROJECTED = replace(MLP, projection_dim=6)
SPECS = {
    "mlp": MLP,
    "mlp without dense features": replace(MLP, dense_features=0),
    "mlp projected": PROJECTED,
    "dlrm": DLRM,
    "dlrm without dense features": replace(DLRM, dense_features=0),
    "dlrm projected": replace(PROJECTED, architecture="dlrm"),
    "dlrm of other bottom": replace(DLRM, bottom_layers=(9, 10, 11)),
    "dlrm of many groups": replace(DLRM, groups=((1, 8, "sum"),) * 6),
    "dlrm of one feature": replace(DLRM, groups=((1, 8, "sum"),)),
}


def naive_logits(model: DenseModel, dense: torch.Tensor, embeddings: list[torch.Tensor]) -> torch.Tensor:
    """The same network as a formula, sample by sample and pair by pair where it matters."""
    spec = model.spec
    if spec.projection_dim:
        embeddings = [group @ model.projections[str(group.shape[2])].t() for group in embeddings]
    if spec.architecture == "mlp":
        return naive_tower(model.top, torch.cat([dense, *(group.flatten(1) for group in embeddings)], 1), last_relu=False).squeeze(1)
    bottom = naive_tower(model.bottom, dense, last_relu=True)
    vectors = [bottom, *(group[:, feature] for group in embeddings for feature in range(group.shape[1]))]
    dots = [(vectors[i] * vectors[j]).sum(1) for i in range(len(vectors)) for j in range(i)]
    return naive_tower(model.top, torch.cat([bottom, torch.stack(dots, 1)], 1), last_relu=False).squeeze(1)


def naive_tower(tower: Tower, x: torch.Tensor, *, last_relu: bool) -> torch.Tensor:
    for index, (weight, bias) in enumerate(zip(tower.weights, tower.biases, strict=True)):
        x = functional.linear(x, weight, bias)
        x = functional.relu(x) if last_relu or index < len(tower.weights) - 1 else x
    return x


def batch_of(spec: DenseSpec, samples: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=dtype)  # noqa: E731
    dense, embeddings = draw(samples, spec.dense_features), [draw(samples, features, dim) for features, dim, _ in spec.groups]
    return dense, embeddings, (torch.rand(samples, generator=generator) < 0.3).to(dtype)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_loss_and_all_gradients_are_those_of_the_naive_network(spec: DenseSpec) -> None:
    model = build(spec).double()
    dense, embeddings, labels = batch_of(spec, 37, torch.float64)
    loss, gradients = train_batch(model, dense, embeddings, labels)
    own = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    leaves = [group.clone().requires_grad_(True) for group in embeddings]
    expected = functional.binary_cross_entropy_with_logits(naive_logits(model, dense, leaves), labels)
    expected.backward()
    torch.testing.assert_close(loss, expected.detach())
    for found, parameter in zip(own, model.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad)
    for found, leaf in zip(gradients, leaves, strict=True):
        assert found.is_contiguous()
        torch.testing.assert_close(found, leaf.grad)


@pytest.mark.parametrize("architecture", ["mlp", "dlrm"])
def test_large_fp32_products_give_the_same(architecture: str) -> None:
    """Large enough for oneDNN, for several slices of the interaction and for a last slice that is not whole."""
    spec = DenseSpec(
        dense_features=13,
        groups=((26, 64, "sum"),),
        layers=(96, 33),
        architecture=architecture,  # type: ignore[arg-type]
        bottom_layers=(64, 48) if architecture == "dlrm" else None,
        seed=1,
    )
    model = build(spec)
    dense, embeddings, labels = batch_of(spec, 301)
    loss, gradients = train_batch(model, dense, embeddings, labels)
    exact = build(spec).double()
    doubles = [group.double().requires_grad_(True) for group in embeddings]
    expected = functional.binary_cross_entropy_with_logits(naive_logits(exact, dense.double(), doubles), labels.double())
    expected.backward()
    torch.testing.assert_close(loss.double(), expected.detach(), rtol=1e-5, atol=0.0)
    torch.testing.assert_close(gradients[0].double(), doubles[0].grad, rtol=1e-3, atol=1e-7)
    for own, wanted in zip(model.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(own.grad.double(), wanted.grad, rtol=1e-3, atol=1e-6)


def test_gradcheck_of_the_interaction() -> None:
    interaction = DotInteraction(6, 3)
    bottom, first, second = (torch.randn(4, *shape, dtype=torch.float64, requires_grad=True) for shape in ((3,), (2, 3), (3, 3)))
    assert torch.autograd.gradcheck(lambda *inputs: interaction(inputs[0], inputs[1:]), (bottom, first, second))


@pytest.mark.parametrize("last_relu", [True, False])
def test_gradcheck_of_a_tower(last_relu: bool) -> None:
    tower = Tower((5, 7, 6, 3), last_relu=last_relu).double()
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(4, 5, dtype=torch.float64, generator=generator)]
    inputs += [torch.randn(p.shape, dtype=torch.float64, generator=generator) for p in tower.parameters()]
    names = [name for name, _ in tower.named_parameters()]

    def run(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(tower, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, [tensor.requires_grad_(True) for tensor in inputs])


def test_inputs_are_not_written_to() -> None:
    dense, embeddings, labels = batch_of(DLRM, 8)
    before = [tensor.clone() for tensor in (dense, *embeddings, labels)]
    train_batch(build(DLRM), dense, embeddings, labels)
    assert all(torch.equal(*pair) for pair in zip(before, (dense, *embeddings, labels), strict=True))


# --- raw bags -----------------------------------------------------------------------------------------------------


def raw_batch(samples: int, features: int, dim: int) -> RawBags:
    lengths = np.random.default_rng(2).integers(0, 4, features * samples)
    offsets = torch.from_numpy(np.concatenate([[0], lengths.cumsum()]).astype(np.int32))
    return RawBags(rows=torch.randn(int(offsets[-1]), dim, generator=torch.Generator().manual_seed(4)), offsets=offsets)


def test_bags_are_summed_feature_major_and_may_be_empty() -> None:
    bags = raw_batch(5, 2, 3)
    summed = sum_bags(bags, 5)
    assert summed.shape == (5, 2, 3)
    for feature, sample in itertools.product(range(2), range(5)):
        low, high = bags.offsets[feature * 5 + sample : feature * 5 + sample + 2].tolist()
        torch.testing.assert_close(summed[sample, feature], bags.rows[low:high].sum(0))


def test_raw_rows_get_the_gradient_of_their_bag() -> None:
    spec = replace(DLRM, groups=((3, 8, "sum"), (2, 8, "raw")))
    dense, (pooled, _), labels = batch_of(spec, 9)
    bags = raw_batch(9, 2, 8)
    _, (pooled_gradient, row_gradient) = train_batch(build(spec), dense, [pooled, bags], labels)
    _, (same_gradient, bag_gradient) = train_batch(build(spec), dense, [pooled, sum_bags(bags, 9)], labels)
    owners = np.repeat(np.arange(18), np.diff(bags.offsets.numpy()))
    torch.testing.assert_close(pooled_gradient, same_gradient)
    torch.testing.assert_close(row_gradient, bag_gradient.transpose(0, 1).reshape(18, 8)[owners])


def test_a_batch_whose_bags_are_all_empty() -> None:
    spec = replace(MLP, groups=((2, 4, "raw"),))
    dense, _, labels = batch_of(spec, 3)
    bags = RawBags(rows=torch.zeros(0, 4), offsets=torch.zeros(7, dtype=torch.int32))
    _, (gradient,) = train_batch(build(spec), dense, [bags], labels)
    assert gradient.shape == (0, 4)


def test_embeddings_of_another_shape_are_refused() -> None:
    dense, embeddings, _ = batch_of(MLP, 3)
    with pytest.raises(ValueError, match="of 1 groups; the model has 2"):
        build(MLP)(dense, embeddings[:1])
    with pytest.raises(ValueError, match=r"group 1 are \(3, 1, 4\); expected \(3, 2, 4\)"):
        build(MLP)(dense, [embeddings[0], embeddings[1][:, :1]])
    with pytest.raises(ValueError, match="not a whole number of features"):
        sum_bags(raw_batch(5, 1, 3), 3)
    with pytest.raises(ValueError, match="rows for 2 rows"):
        sum_bags(RawBags(rows=torch.zeros(2, 3), offsets=torch.tensor([0, 1], dtype=torch.int32)), 1)


# --- weights and sizes --------------------------------------------------------------------------------------------


def test_the_seed_decides_the_weights() -> None:
    torch.manual_seed(99)
    first = build(DLRM)
    torch.manual_seed(1)
    second, other = build(DLRM), build(replace(DLRM, seed=8))
    assert all(torch.equal(*pair) for pair in zip(first.parameters(), second.parameters(), strict=True))
    assert not any(torch.equal(*pair) for pair in zip(first.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_the_spec_counts_the_parameters(spec: DenseSpec) -> None:
    assert sum(spec.layer_parameters()) == sum(parameter.numel() for parameter in build(spec).parameters())


@pytest.mark.parametrize("name", ["persia-100t", "in-house-v100-avazu", "laptop"])
@pytest.mark.parametrize("architecture", ["mlp", "dlrm"])
def test_the_simulator_counts_the_same_layers(name: str, architecture: str) -> None:
    scenario = load_scenario(name)
    dense = scenario.model.dense.model_copy(update={"architecture": architecture})
    scenario = scenario.model_copy(update={"model": scenario.model.model_copy(update={"dense": dense})})
    spec = DenseSpec(
        dense_features=dense.dense_features,
        groups=tuple((feature.count, feature.dim, feature.pooling) for feature in scenario.model.features),
        layers=tuple(dense.layers),
        projection_dim=dense.projection_dim,
        architecture=dense.architecture,
    )
    assert list(spec.layer_parameters()) == dense_layer_parameters(scenario)
    bottom = spec.bottom_widths[1:] if architecture == "dlrm" else ()
    assert dense_layer_widths(scenario) == [*bottom, *spec.top_widths[1:]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": ()}, "groups"),
        ({"groups": ((0, 8, "sum"),)}, "groups"),
        ({"layers": ()}, "layers"),
        ({"layers": (8, 0)}, "layers"),
        ({"bottom_layers": (0,)}, "bottom_layers"),
        ({"dense_features": -1}, "dense_features"),
        ({"projection_dim": 0}, "projection_dim"),
        ({"architecture": "transformer"}, "architecture"),
        ({"precision": "fp8"}, "precision"),
        ({"architecture": "dlrm"}, "dot products"),
    ],
)
def test_what_cannot_be_built_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(MLP, **change)  # type: ignore[arg-type]
