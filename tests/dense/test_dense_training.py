"""Training steps, gradients that are not finite, optimizers, and the state as arrays."""

from __future__ import annotations

import datetime
import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
import torch.distributed as dist  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

from persia.dense import (  # noqa: E402
    DenseModel,
    DenseSpec,
    LossScale,
    accept_gradients,
    build,
    flat_gradients,
    flat_parameters,
    load_state_arrays,
    make_optimizer,
    set_flat_parameters,
    state_arrays,
    take_step,
    train_batch,
)
from tests.support import ROOT  # noqa: E402

SPEC = DenseSpec(dense_features=3, groups=((2, 4, "sum"),), layers=(8,), architecture="dlrm", seed=5)
KINDS = ("sgd", "adam", "adagrad")


def batch_of(seed: int, samples: int = 16) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    dense, embeddings = torch.randn(samples, 3, generator=generator), torch.randn(samples, 2, 4, generator=generator)
    return dense, [embeddings], (dense.sum(1) > 0).float()


def train(model: DenseModel, optimizer: torch.optim.Optimizer, batches: range) -> list[float]:
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss, _ = train_batch(model, *batch_of(batch))
        assert accept_gradients(model)
        take_step(optimizer)
        losses.append(float(loss))
    return losses


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns(kind: str) -> None:
    model = build(SPEC)
    losses = train(model, make_optimizer(kind, model.parameters(), {"sgd": 0.5}.get(kind, 0.02)), range(120))
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:20])


@pytest.mark.parametrize("kind", KINDS)
def test_the_fast_optimizer_is_torchs_plain_one(kind: str) -> None:
    plain = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adagrad": torch.optim.Adagrad}[kind]
    first, second = build(SPEC), build(SPEC)
    train(first, make_optimizer(kind, first.parameters(), 0.05), range(20))
    optimizer = plain(second.parameters(), lr=0.05, foreach=False)
    for batch in range(20):
        optimizer.zero_grad()
        train_batch(second, *batch_of(batch))
        optimizer.step()
    torch.testing.assert_close(flat_parameters(first), flat_parameters(second), rtol=1e-5, atol=1e-6)


UNCOMPILED = """
import sys, torch
from persia.dense import DenseSpec, build, make_optimizer, take_step, train_batch
model = build(DenseSpec(dense_features=3, groups=((2, 4, "sum"),), layers=(8,), architecture="dlrm", seed=5))
for kind in ("sgd", "adam", "adagrad"):
    optimizer = make_optimizer(kind, model.parameters(), 0.1)
    train_batch(model, torch.ones(2, 3), [torch.ones(2, 2, 4)], torch.ones(2))
    take_step(optimizer)
    optimizer.zero_grad()
print("torch._dynamo" in sys.modules)
"""


def test_no_compiler_is_imported_which_takes_seconds() -> None:
    done = subprocess.run([sys.executable, "-c", UNCOMPILED], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(ValueError, match="lamb"):
        make_optimizer("lamb", build(SPEC).parameters(), 0.1)  # type: ignore[arg-type]


# --- gradients that are not finite --------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["dense", "embeddings"])
def test_an_infinite_input_is_neither_stepped_nor_sent(place: str) -> None:
    model = build(SPEC)
    train(model, make_optimizer("sgd", model.parameters(), 0.1), range(2))
    model.zero_grad()
    dense, embeddings, labels = batch_of(9)
    (dense if place == "dense" else embeddings[0])[0, 0] = float("nan")
    _, gradients = train_batch(model, dense, embeddings, labels)
    assert not accept_gradients(model)
    assert all((gradient == 0.0).all() for gradient in gradients)
    assert model.loss_scale.refused == 1


def test_every_batch_is_checked_not_only_the_first() -> None:
    model = build(SPEC)
    for batch, bad in enumerate([False, True, False, True, True]):
        model.zero_grad()
        dense, embeddings, labels = batch_of(batch)
        embeddings[0][0, 0, 0] = float("inf") if bad else 0.0
        train_batch(model, dense, embeddings, labels)
        assert accept_gradients(model) is not bad


def test_a_scaled_loss_gives_the_same_gradients() -> None:
    plain, scaled = build(SPEC), build(replace(SPEC, precision="fp16"))
    assert scaled.loss_scale.scale == 65536.0
    loss, gradients = train_batch(plain, *batch_of(1))
    scaled_loss, scaled_gradients = train_batch(scaled, *batch_of(1))
    torch.testing.assert_close(loss, scaled_loss)
    torch.testing.assert_close(gradients, scaled_gradients)
    torch.testing.assert_close(flat_gradients(plain), flat_gradients(scaled))


def test_the_scale_halves_and_doubles() -> None:
    scale = LossScale(enabled=True)
    scale.update(finite=False)
    assert (scale.scale, scale.refused) == (32768.0, 1)
    for _ in range(LossScale.GROWTH_BATCHES):
        scale.update(finite=True)
    assert scale.scale == 65536.0
    fixed = LossScale(enabled=False)
    fixed.update(finite=False)
    assert (fixed.scale, fixed.refused) == (1.0, 1)


# --- state --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_it_goes_on_bit_for_bit(kind: str) -> None:
    model = build(SPEC)
    optimizer = make_optimizer(kind, model.parameters(), 0.05)
    train(model, optimizer, range(5))
    file = io.BytesIO()
    np.savez(file, **state_arrays(model, optimizer))
    train(model, optimizer, range(5, 9))
    other = build(replace(SPEC, seed=77))
    other_optimizer = make_optimizer(kind, other.parameters(), 0.05)
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        load_state_arrays(other, other_optimizer, dict(arrays))
    train(other, other_optimizer, range(5, 9))
    assert torch.equal(flat_parameters(model), flat_parameters(other))


def test_saved_before_the_first_step() -> None:
    model = build(SPEC)
    optimizer = make_optimizer("adam", model.parameters(), 0.05)
    load_state_arrays(model, optimizer, state_arrays(model, optimizer))
    train(model, optimizer, range(2))


def test_a_state_that_does_not_fit_is_refused_and_changes_nothing() -> None:
    model = build(SPEC)
    optimizer = make_optimizer("adam", model.parameters(), 0.05)
    train(model, optimizer, range(2))
    arrays = {name: np.array(array) for name, array in state_arrays(model, optimizer).items()}
    name = "optimizer/top.weights.0/exp_avg"
    before = flat_parameters(model)
    for wrong, message in [
        ({key: value for key, value in arrays.items() if key != name}, f"missing {name}"),
        ({**arrays, "parameter/other": np.zeros(3)}, "foreign parameter/other"),
        ({**arrays, name: arrays[name][:-1]}, "is float32\\[7, 7\\], expected float32\\[8, 7\\]"),
        ({**arrays, name: arrays[name].astype(np.float64)}, "is float64"),
        ({}, "and 3 more"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_state_arrays(build(replace(SPEC, seed=1)), optimizer, wrong)
        assert torch.equal(before, flat_parameters(model))
    adagrad = make_optimizer("adagrad", model.parameters(), 0.05)
    with pytest.raises(ValueError, match="of another model or optimizer"):
        load_state_arrays(model, adagrad, arrays)


def test_the_flat_vector_is_the_parameters_in_order() -> None:
    model, other = build(SPEC), build(replace(SPEC, seed=6))
    set_flat_parameters(other, flat_parameters(model))
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), other.parameters(), strict=True))
    assert flat_parameters(model).dtype == torch.float32
    with pytest.raises(ValueError, match="dense parameters"):
        set_flat_parameters(model, torch.zeros(3))


def test_flat_gradients_are_a_copy_and_zero_where_there_are_none() -> None:
    model = build(SPEC)
    assert not flat_gradients(model).any()
    train_batch(model, *batch_of(0))
    vector = flat_gradients(model)
    expected = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    assert torch.equal(vector, expected)
    vector.zero_()
    assert expected.any()
    assert torch.equal(flat_gradients(model), expected)


def test_wrapped_for_several_ranks_it_is_the_same_model(tmp_path: Path) -> None:
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1, timeout=datetime.timedelta(seconds=20))
    try:
        model, single = build(SPEC), build(SPEC)
        wrapped = DistributedDataParallel(model)
        loss, gradients = train_batch(wrapped, *batch_of(3))
        expected_loss, expected = train_batch(single, *batch_of(3))
        assert torch.equal(loss, expected_loss)
        assert torch.equal(gradients[0], expected[0])
        assert torch.equal(flat_gradients(wrapped), flat_gradients(single))
        assert accept_gradients(wrapped)
        optimizer = make_optimizer("adam", wrapped.parameters(), 0.1)
        optimizer.step()
        assert list(state_arrays(wrapped, optimizer)) == list(state_arrays(model, optimizer))
    finally:
        dist.destroy_process_group()


def test_only_the_dense_model_can_be_trained() -> None:
    with pytest.raises(TypeError, match="Linear"):
        train_batch(torch.nn.Linear(2, 1), *batch_of(0))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16"])
def test_on_a_gpu_it_gives_nearly_the_same(precision: str) -> None:
    spec = replace(SPEC, precision=precision)
    dense, embeddings, labels = batch_of(2, 256)
    model = build(spec).cuda()
    loss, gradients = train_batch(model, dense.cuda(), [group.cuda() for group in embeddings], labels.cuda())
    expected_loss, expected = train_batch(build(SPEC), dense, embeddings, labels)
    assert accept_gradients(model)
    torch.testing.assert_close(loss.cpu(), expected_loss, rtol=1e-2, atol=1e-3)
    assert (gradients[0].cpu() - expected[0]).norm() < 3e-2 * expected[0].norm()
