"""Write the model card and the dataset card, with the figures of the run."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from huggingface_hub import DatasetCard, DatasetCardData, EvalResult, ModelCard, ModelCardData

from thumbtune.channel.source import source_of
from thumbtune.data.thumbnails import Example
from thumbtune.learning.choosing import Plan
from thumbtune.learning.evaluation import Evaluation
from thumbtune.learning.trained_model import TrainedModel
from thumbtune.metrics import TRIPLETS, described
from thumbtune.parameters import TrainParameters
from thumbtune.reporting.insights import Pair, best
from thumbtune.reporting.report import SPLIT_NAMES, Comparison, FunnelStage, Report, compare
from thumbtune.store.model_reference import ModelReference
from thumbtune.text.escaping import as_code, for_markdown

TEMPLATES = Path(__file__).parent / "templates"


def channel_name(parameters: TrainParameters) -> str:
    """How cards call the channel: never by a path of this machine."""
    return source_of(parameters.source).public_name(parameters.channel or "")


def base_name(model: ModelReference) -> str:
    """How cards call the untouched model: its hub id, or a folder's name without the way there."""
    if model.name == "sample":
        return "thumbtune's sample CLIP"
    return model.name if model.is_from_hub else Path(model.path).name


def metric_title(metric: str) -> str:
    """A metric in words: `text-to-image_Recall@5` is "Recall@5, title → thumbnail"."""
    known = described(metric)
    label = _lower_first(known.metric.label)
    return label if known.metric is TRIPLETS else f"{label}, {known.way}"


def _lower_first(label: str) -> str:
    """As within a sentence; a name such as Recall@5 stays as it is."""
    return label if "@" in label or label.isupper() else label[:1].lower() + label[1:]


def with_interval(value: float, interval: tuple[float, float] | None) -> str:
    """A figure with its 95 % interval: "0.750 (0.500 to 1.000)"."""
    if interval is None:
        return f"{value:.3f}"
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def public_address(example: Example) -> str | None:
    """Of a thumbnail, as the article stores it (high, 480x360) if there is; None of a file's."""
    place = example.thumbnails.get("high") or next(iter(example.thumbnails.values()), "")
    return place if place.startswith(("https://", "http://")) else None


def pictured(pairs: Sequence[Pair]) -> list[tuple[str, str, str, int]]:
    """What the model answers to a few thumbnails that anybody can look at: the address, the own
    title, the one that is ranked first, the own one's rank. Two are among its best, two its
    worst."""
    public = [pair for pair in pairs if public_address(pair.example)]
    worst = sorted(public, key=lambda pair: -pair.prediction.rank)[:2]
    shown = [pair for pair in best(public)[:2] if pair not in worst] + worst
    return [
        (
            quote(public_address(pair.example) or "", safe=":/?&=%"),
            for_markdown(pair.example.title),
            for_markdown(pair.prediction.top_title),
            pair.prediction.rank,
        )
        for pair in shown
    ]


def model_card(
    parameters: TrainParameters,
    funnel: Sequence[FunnelStage],
    plan: Plan,
    trained: TrainedModel,
    untouched: Evaluation,
    article: Evaluation | None,
    fine_tuned: Evaluation,
    pairs: Sequence[Pair] = (),
) -> str:
    """The README.md of the model, with its metrics as the hub's evaluation results.

    The hub has no widget that takes pictures for a model of this kind, so they stand in the text.

    Args:
        pairs: the thumbnails that it was judged on.

    https://huggingface.co/docs/hub/model-cards
    """
    comparisons = compare(untouched, article, fine_tuned)
    publish = parameters.publish
    name = publish.model_repo or f"CLIP for {channel_name(parameters)}"
    data = ModelCardData(
        license=publish.model_license,
        base_model=untouched.model.name if untouched.model.is_from_hub else None,
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=["sentence-transformers", "clip", "image-text-retrieval", "thumbtune"],
        datasets=[publish.dataset_repo] if publish.dataset_repo else None,
        metrics=["recall", "mrr", "accuracy"],
        model_name=name,
        eval_results=[_result(row, parameters) for row in comparisons],
    )
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATES / "model_card.md"),
        name=for_markdown(name),
        channel=for_markdown(channel_name(parameters)),
        base=for_markdown(base_name(untouched.model)),
        repo=publish.model_repo or "model",
        trained=trained,
        training=plan.candidate.recipe.training if plan.candidate.recipe else None,
        plan=plan,
        judged=fine_tuned.judged,
        cross_fit=plan.method == "cross_fit",
        negatives=parameters.negatives,
        trainable=" or ".join(map(for_markdown, parameters.training.trainable)),
        names=[as_code(parameter) for parameter in trained.trainable.names],
        text_model=for_markdown(Path(parameters.negatives.text_model).name),
        split=parameters.split,
        seed=parameters.seed,
        rows=[
            (
                f"{SPLIT_NAMES[row.split]} ({row.rows})",
                metric_title(row.metric),
                "" if row.chance is None else f"{row.chance:.3f}",
                with_interval(row.untouched, row.untouched_interval),
                "" if row.article is None else with_interval(row.article, row.article_interval),
                with_interval(row.fine_tuned, row.fine_tuned_interval),
            )
            for row in comparisons
        ],
        funnel=[_as_markdown(stage) for stage in funnel],
        pictured=pictured(pairs),
    )
    return str(card)


def _as_markdown(stage: FunnelStage) -> FunnelStage:
    """The same with its words fit for a table."""
    dropped: Counter[str] = Counter()
    for reason, count in stage.dropped.items():
        dropped[for_markdown(reason)] += count
    return stage.model_copy(update={"name": for_markdown(stage.name), "dropped": dict(dropped)})


def _result(row: Comparison, parameters: TrainParameters) -> EvalResult:
    """The fine-tuned model's figure; the untouched model's are no results of this one."""
    return EvalResult(
        task_type="image-text-retrieval",
        dataset_type=parameters.publish.dataset_repo or "thumbtune",
        dataset_name=channel_name(parameters),
        dataset_split=row.split,
        metric_type=row.metric,
        metric_name=metric_title(row.metric),
        metric_value=round(row.fine_tuned, 4),
    )


def dataset_card(
    parameters: TrainParameters, funnel: Sequence[FunnelStage], rows: dict[str, int]
) -> str:
    """The README.md of the dataset.

    https://huggingface.co/docs/hub/datasets-cards
    """
    data = DatasetCardData(
        license=parameters.publish.dataset_license,
        tags=["youtube", "thumbnails", "thumbtune"],
        task_categories=["sentence-similarity"],
        pretty_name=f"Titles and thumbnails of {channel_name(parameters)}",
    )
    card = DatasetCard.from_template(
        data,
        template_path=str(TEMPLATES / "dataset_card.md"),
        channel=for_markdown(channel_name(parameters)),
        split=parameters.split,
        negatives=parameters.negatives,
        rows=rows,
        funnel=[_as_markdown(stage) for stage in funnel],
    )
    return str(card)


class Cards(Report):
    """The cards: model/README.md and dataset/README.md."""
