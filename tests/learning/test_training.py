"""Fine-tuning itself, on the bundled sample."""

import gc
import logging
import weakref
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer

from tests.small_channel import make_examples
from tests.tiny_clip import save_tiny_clip
from thumbtune.channel.videos import list_videos
from thumbtune.clip.features import head_of
from thumbtune.clip.freezing import freeze
from thumbtune.clip.models import find_model, folder_of, load_model
from thumbtune.data.negatives import pair_titles
from thumbtune.data.splits import divide_videos
from thumbtune.data.thumbnails import Example, ThumbnailStore, examples_of
from thumbtune.learning.candidates import Recipe, given_candidate
from thumbtune.learning.columns import training_dataset
from thumbtune.learning.evaluation import NotFiniteError, RecallEvaluator, embed_titles
from thumbtune.learning.job import TrainingJob, save, train
from thumbtune.learning.loss import ranking_loss
from thumbtune.learning.trained_model import LossPoint
from thumbtune.learning.training import fine_tune
from thumbtune.parameters import (
    SPLITS,
    EvaluationParameters,
    NegativesParameters,
    SplitParameters,
    ThumbnailsParameters,
    TrainingParameters,
    VideosParameters,
)
from thumbtune.sample import MODEL
from thumbtune.store.workspace import Workspace

Splits = dict[str, list[Example]]
MEASURES = EvaluationParameters()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Splits]:
    """The sample channel, ready to train on."""
    workspace = Workspace.open(tmp_path_factory.mktemp("training"))
    videos = list_videos(workspace, "sample", None, VideosParameters()).videos
    model = SentenceTransformer(str(MODEL))
    pairs = pair_titles(
        divide_videos(videos, SplitParameters(), seed=42),
        NegativesParameters(),
        seed=42,
        embed=lambda titles: embed_titles(model, titles),
    )
    store = ThumbnailStore(workspace, ThumbnailsParameters(), refresh=False)
    examples, dropped = examples_of(pairs, [store.get(video) for video in videos], 0.1)
    assert dropped == {
        "thumbnail: truncated or corrupt picture": 1,
        "thumbnail: file missing or unreadable": 1,
    }
    return workspace, {split: [e for e in examples if e.split == split] for split in SPLITS}


def run(
    shared: tuple[Workspace, Splits], seed: int = 42, **parameters: object
) -> tuple[SentenceTransformer, list[LossPoint], float]:
    """Train on stored features, which give the weights of whole forward passes (test_features)."""
    workspace, splits = shared
    model = SentenceTransformer(str(MODEL))
    freeze(model, ["projection"])
    settings = TrainingParameters.model_validate({"learning_rate": 1e-3, **parameters})
    train, valid = splits["train"], splits["valid"]
    head, _ = head_of(workspace, model, [*train, *valid])
    history, epoch = fine_tune(head, workspace, train, valid, settings, MEASURES, seed)
    return model, history, epoch


def recall_at_1(shared: tuple[Workspace, Splits], model: SentenceTransformer, split: str) -> float:
    workspace, splits = shared
    evaluator = RecallEvaluator(workspace, splits[split], split, MEASURES)
    return evaluator(model)[f"yt-title-thumbnail-{split}_Recall@1"]


@pytest.mark.slow
def test_the_untouched_sample_model_is_above_chance_and_fine_tuning_helps_for_each_of_five_seeds(
    shared: tuple[Workspace, Splits],
) -> None:
    untouched = recall_at_1(shared, SentenceTransformer(str(MODEL)), "test")
    assert untouched > 5 / len(shared[1]["test"])
    for seed in range(5):
        assert recall_at_1(shared, run(shared, seed, epochs=5)[0], "test") > untouched + 0.15


@pytest.mark.slow
def test_a_training_looks_for_no_examples_for_a_card_that_we_write(
    shared: tuple[Workspace, Splits], capfd: pytest.CaptureFixture[str]
) -> None:
    run(shared, epochs=1)
    assert "widget" not in capfd.readouterr().err


@pytest.mark.compatibility
def test_only_the_projections_change(shared: tuple[Workspace, Splits]) -> None:
    before = dict(SentenceTransformer(str(MODEL)).named_parameters())
    after = dict(run(shared)[0].named_parameters())
    changed = [name for name in before if not torch.equal(before[name], after[name].cpu())]
    assert [name.split(".")[-2] for name in changed] == ["visual_projection", "text_projection"]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    shared: tuple[Workspace, Splits],
) -> None:
    def weights(seed: int) -> torch.Tensor:
        parameters = run(shared, seed, epochs=1)[0].named_parameters()
        return next(value for name, value in parameters if "text_projection" in name)

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_clip_stored_in_half_precision_trains_as_the_same_weights_in_float32(
    workspace: Workspace, tmp_path: Path, dtype: torch.dtype
) -> None:
    half = save_tiny_clip(tmp_path / "half", dtype=dtype)
    upcast = SentenceTransformer(str(half)).float()
    upcast.save_pretrained(str(tmp_path / "upcast"), create_model_card=False)
    rows = [
        row.model_copy(update={"title_neg": f"not {n}"})
        for n, row in enumerate(make_examples(workspace, 40))
    ]

    def trained(clip: Path) -> SentenceTransformer:
        job = TrainingJob(
            workspace=workspace,
            model=find_model(str(clip)),
            examples=workspace.write_table("examples", rows),
            candidate=given_candidate(
                Recipe(
                    training=TrainingParameters(learning_rate=1e-4), negatives=NegativesParameters()
                )
            ),
            learns=("train",),
            parameters=TrainingParameters(),
            evaluation=MEASURES,
            seed=42,
            precision="float32",
        )
        done = train(job, logging.getLogger())
        assert done
        return SentenceTransformer(str(folder_of(done.model, workspace)))

    ours = projection(trained(half))
    assert ours.dtype == torch.float32
    expected = projection(trained(tmp_path / "upcast"))
    moved = torch.norm(expected - projection(upcast))
    assert torch.norm(ours - expected) < 1e-4 * moved  # it sums in another order at times


@pytest.mark.slow
@pytest.mark.parametrize("interpolation", [1.0, 0.3])
def test_the_epoch_of_the_best_validation_mrr_is_kept_and_it_is_that_of_the_kept_weights(
    shared: tuple[Workspace, Splits], interpolation: float
) -> None:
    model, history, epoch = run(shared, epochs=10, interpolation=interpolation)
    validated = {p.epoch: p.valid_mrr for p in history if p.valid_mrr is not None}
    best = max(validated.values())
    assert epoch == min(at for at, mrr in validated.items() if mrr == best) < 10
    assert valid_mrr(shared, model) == pytest.approx(best)


def valid_mrr(shared: tuple[Workspace, Splits], model: SentenceTransformer) -> float:
    workspace, splits = shared
    evaluator = RecallEvaluator(workspace, splits["valid"], "valid", MEASURES)
    return evaluator(model)["yt-title-thumbnail-valid_MRR"]


@pytest.mark.slow
def test_the_curve_is_that_of_the_weights_that_each_epoch_would_keep(
    shared: tuple[Workspace, Splits],
) -> None:
    _, history, _ = run(shared, epochs=4, interpolation=0.3)
    told = [point.valid_mrr for point in history if point.valid_mrr is not None]
    _, raw, _ = run(shared, epochs=4)
    assert told != [point.valid_mrr for point in raw if point.valid_mrr is not None]
    last = run(shared, epochs=4, interpolation=0.3, keep_best_epoch=False)[0]
    assert told[-1] == pytest.approx(valid_mrr(shared, last))


def test_the_last_epoch_is_kept_when_asked(shared: tuple[Workspace, Splits]) -> None:
    assert run(shared, epochs=2, keep_best_epoch=False)[2] == 2


def projection(model: SentenceTransformer) -> torch.Tensor:
    return next(v.cpu() for name, v in model.named_parameters() if "text_projection" in name)


@pytest.mark.slow
def test_interpolation_keeps_a_share_of_the_trained_weights(
    shared: tuple[Workspace, Splits],
) -> None:
    untouched, trained = projection(SentenceTransformer(str(MODEL))), projection(run(shared)[0])
    for keep_best_epoch in (True, False):
        kept = run(shared, interpolation=0.25, keep_best_epoch=keep_best_epoch)[0]
        expected = 0.75 * untouched + 0.25 * trained  # of 2 epochs, the last is the best
        torch.testing.assert_close(projection(kept), expected)


def test_the_symmetric_loss_lets_titles_pick_their_thumbnails_too() -> None:
    images, titles, negatives = (
        torch.nn.functional.normalize(rows) for rows in torch.randn(3, 5, 8).unbind()
    )
    model, own = SentenceTransformer(str(MODEL)), torch.arange(5)
    to_titles = torch.nn.functional.cross_entropy(
        30 * images @ torch.cat([titles, negatives]).T, own
    )
    to_images = torch.nn.functional.cross_entropy(30 * titles @ images.T, own)
    for symmetric, expected in ((False, to_titles), (True, (to_titles + to_images) / 2)):
        loss = ranking_loss(model, TrainingParameters(scale=30, symmetric=symmetric))
        measured = loss.compute_loss_from_embeddings([images, titles, negatives], own)
        torch.testing.assert_close(measured, expected)


def test_a_model_that_has_diverged_is_an_error_and_not_a_perfect_score(
    shared: tuple[Workspace, Splits],
) -> None:
    model = SentenceTransformer(str(MODEL))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "projection" in name:
                parameter.fill_(float("nan"))
    with pytest.raises(NotFiniteError, match=r"lower training\.learning_rate"):
        recall_at_1(shared, model, "test")


def test_the_history_has_every_step_and_a_validation_each_epoch(
    shared: tuple[Workspace, Splits],
) -> None:
    _, history, _ = run(shared, epochs=2)
    steps = [point for point in history if point.train_loss is not None]
    assert len(steps) == 2 * -(-len(shared[1]["train"]) // 16)
    assert [p.epoch for p in history if p.valid_loss is not None] == [1, 2]


def test_columns_are_anchor_positive_negative_and_anchors_are_pictures(
    shared: tuple[Workspace, Splits],
) -> None:
    workspace, splits = shared
    dataset = training_dataset(workspace, splits["train"])
    assert dataset.column_names == ["anchor", "positive", "negative"]
    row = dataset[0]
    assert row["anchor"].size == (480, 270)
    assert (row["positive"], row["negative"]) == (
        splits["train"][0].title,
        splits["train"][0].title_neg,
    )
    bare = [e.model_copy(update={"title_neg": None}) for e in splits["train"]]
    assert training_dataset(workspace, bare).column_names == ["anchor", "positive"]


def test_a_model_is_saved_whole_where_its_own_weights_name_it(workspace: Workspace) -> None:
    model = SentenceTransformer(str(MODEL))
    saved = save(model, workspace, "mine")
    folder = workspace.root / "models" / saved.fingerprint[:16]
    assert saved.path == f"models/{folder.name}/model"
    assert (load_model(saved, workspace).encode("a") == model.encode("a")).all()
    card = folder / "model" / "README.md"
    card.write_text("# A card")
    assert save(model, workspace, "again") == saved.called("again")
    assert card.exists()  # what is whole is left as it is
    (folder / "model" / "old").touch()
    assert save(model, workspace, "mine") == saved
    assert [path.name for path in folder.iterdir()] == ["model"]
    assert not (folder / "model" / "old").exists()


def test_other_weights_have_another_place(workspace: Workspace) -> None:
    model = SentenceTransformer(str(MODEL))
    first = save(model, workspace, "mine")
    with torch.no_grad():
        model[0].model.logit_scale += 1
    second = save(model, workspace, "mine")
    assert first.path != second.path
    assert first.is_intact(workspace)
    assert second.is_intact(workspace)


def test_models_that_nobody_uses_are_freed_without_a_garbage_collection(
    shared: tuple[Workspace, Splits],
) -> None:
    workspace, splits = shared
    gc.disable()
    try:
        model = load_model(find_model("sample"))
        freeze(model, ("projection",))
        head, _ = head_of(workspace, model, splits["train"])
        references = weakref.ref(model), weakref.ref(head)
        del model, head
        assert [reference() for reference in references] == [None, None]
    finally:
        gc.enable()
