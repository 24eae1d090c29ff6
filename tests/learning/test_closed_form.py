"""The closed form: held to the algebra, written another way, and to the model that is saved."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from sentence_transformers import SentenceTransformer

from tests.pooled_outputs import drawn
from tests.small_channel import make_examples
from tests.tiny_clip import save_tiny_clip
from thumbtune.clip.ends import KINDS
from thumbtune.clip.features import head_of
from thumbtune.clip.freezing import freeze
from thumbtune.data.thumbnails import load_image
from thumbtune.learning.candidates import Candidate, begin
from thumbtune.learning.closed_form import ClosedForm, Whitened, maps_of
from thumbtune.learning.full_batches import FullBatches, train_on_all
from thumbtune.learning.pooled import Pooled, end_of
from thumbtune.sample import MODEL
from thumbtune.store.workspace import Workspace


def as_written(images, texts, projections, ridge: float, prior: float) -> np.ndarray:
    """The bilinear form of the closed form by matrix roots: P U S V' Q of the module's words."""

    def whitener(values: np.ndarray) -> np.ndarray:
        covariance = np.cov(values.T, bias=True)
        floor = ridge * np.trace(covariance) / len(covariance)
        return np.linalg.inv(sqrtm(covariance + floor * np.eye(len(covariance))).real)

    p, q = whitener(images), whitener(texts)
    cross = (images - images.mean(0)).T @ (texts - texts.mean(0)) / len(images)
    m = p @ cross @ q
    z = np.linalg.inv(p) @ projections["image"].T @ projections["text"] @ np.linalg.inv(q)
    u, s, v = np.linalg.svd((1 - prior) * m + prior * z * np.linalg.norm(m) / np.linalg.norm(z))
    keep = len(projections["image"])
    return p @ (u[:, :keep] * s[:keep]) @ v[:keep] @ q


@given(
    seed=st.integers(0, 1000),
    pairs=st.integers(3, 40),
    widths=st.tuples(st.integers(4, 20), st.integers(4, 20)),
    ridge=st.floats(0.01, 3),
    prior=st.floats(0, 0.95),
)
def test_maps_are_those_of_the_algebra_written_with_matrix_roots(
    seed: int, pairs: int, widths: tuple[int, int], ridge: float, prior: float
) -> None:
    outputs, projections = drawn(pairs, widths, 4, seed)
    chosen = ClosedForm(ridge=ridge, prior=prior)
    maps = Whitened(outputs, projections).solve(chosen)
    form = maps.maps["image"].T @ maps.maps["text"]
    expected = as_written(outputs["image"], outputs["text"], projections, ridge, prior)
    assert np.allclose(form, expected, atol=1e-6 * np.abs(expected).max() + 1e-9)
    assert np.allclose(maps.means["image"], outputs["image"].mean(axis=0))


def test_with_the_whole_weight_on_the_prior_pairs_are_ranked_as_the_untouched_model_does() -> None:
    outputs, projections = drawn(30, (8, 6), 5, 0)
    whole = Whitened(outputs, projections)
    maps = whole.solve(ClosedForm(ridge=0.1, prior=1))
    ours = maps.maps["image"].T @ maps.maps["text"]
    before = projections["image"].T @ projections["text"]
    assert np.allclose(ours / np.linalg.norm(ours), before / np.linalg.norm(before))


def test_fewer_pairs_than_directions_and_equal_pictures_give_finite_maps() -> None:
    outputs, projections = drawn(3, (16, 12), 8, 0)
    pictures = outputs["image"]
    for some in (pictures, np.repeat(pictures[:1], 3, axis=0)):
        white = Whitened(outputs | {"image": some}, projections)
        maps = white.solve(ClosedForm(ridge=0.1, prior=0))
        assert all(np.isfinite(maps.maps[kind]).all() for kind in KINDS)


def base_model(tmp_path: Path, which: str) -> str:
    return str(MODEL if which == "sample" else save_tiny_clip(tmp_path / "clip"))


@pytest.mark.parametrize("which", ["sample", "tiny"])
@pytest.mark.parametrize("polished", [False, True])
def test_the_saved_model_is_an_ordinary_clip_with_the_cosines_of_the_algebra(
    tmp_path: Path, workspace: Workspace, which: str, polished: bool
) -> None:
    rows = make_examples(workspace, 40)
    model = SentenceTransformer(base_model(tmp_path, which))
    freeze(model, ["projection"])
    head, _ = head_of(workspace, model, rows)
    pooled = Pooled.of(head, rows)
    chosen = ClosedForm(ridge=0.3, prior=0.2)
    maps = Whitened(pooled.outputs, maps_of(end_of(head)).maps).solve(chosen)
    steps = FullBatches(steps=5, pace=0.01) if polished else None
    if steps:
        (maps,) = train_on_all([maps], [pooled], steps)
    begin(head, Candidate(name="it", start=chosen, full_batches=steps), rows)
    model.save_pretrained(str(tmp_path / "saved"), create_model_card=False)

    plain = SentenceTransformer(str(tmp_path / "saved"))
    assert type(plain[0].model).__name__ == "CLIPModel"
    pictures = [load_image(workspace, row) for row in rows[:12]]
    titles = [row.title for row in rows[:12]]
    got = plain.similarity(plain.encode(pictures), plain.encode(titles)).numpy()
    images, texts = (maps.embed(kind, pooled.outputs[kind][:12]) for kind in KINDS)
    lengths = np.outer(np.linalg.norm(images, axis=1), np.linalg.norm(texts, axis=1))
    assert np.abs(got - images @ texts.T / lengths).max() < 1e-5
