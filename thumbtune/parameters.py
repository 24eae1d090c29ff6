"""Every parameter of a run, in one model with three faces.

`TrainParameters` is the command line (`python flows/train_flow.py --training.epochs 3`), the form
in the Prefect UI, and the `parameters:` block of prefect.yaml. Secrets are never parameters, since
Prefect stores parameters as plain text: see `thumbtune.channel.secrets`.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from thumbtune.commands import DEFAULT_WORKSPACE
from thumbtune.errors import ParametersError, SourceError, problems_of
from thumbtune.metrics import DECIDING, PRIMARY
from thumbtune.names.sources import Spelled, source_named, source_names, usable_sources
from thumbtune.store.storage import checked_location

if TYPE_CHECKING:
    SourceName = str
    DecidingMetric = str
else:  # choices in Prefect's form
    SourceName = Literal[source_names()]
    DecidingMetric = Literal[DECIDING]

SPLITS = ("train", "valid", "test")
WantedPrecision = Literal["auto", "float32", "bfloat16", "int8"]
AUTO = ("auto",)
"""Of `training.trainable`: what suits the model."""
"""The names of the three splits, as in the article."""


LICENSE = r"^[a-z0-9][a-z0-9.-]*$"
"""As the hub calls licenses: https://huggingface.co/docs/hub/repositories-licenses."""

HOST_RULE = r"^(\*\.)?[\w-]+(\.[\w-]+)+$"
"""A host's full name, or `*.` and at least two labels: `*.com` would let anyone in."""


class ChangesNothing:
    """Marks a parameter without influence on what comes out: with another value of it, what was
    done before is used again."""


CHANGES_NOTHING = ChangesNothing()


def without_influence(parameters: BaseModel) -> dict[str, Any]:
    """The marked fields of parameters and of their stages, as pydantic's `exclude`."""
    found: dict[str, Any] = {}
    for name, field in type(parameters).model_fields.items():
        value = getattr(parameters, name)
        if CHANGES_NOTHING in field.metadata:
            found[name] = True
        elif isinstance(value, BaseModel) and (deeper := without_influence(value)):
            found[name] = deeper
    return found


class _Stage(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
    retired: ClassVar[frozenset[str]] = frozenset()
    """Fields of earlier versions, which stored records and deployments may still have."""

    @model_validator(mode="before")
    @classmethod
    def _without_retired(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {name: value for name, value in data.items() if name not in cls.retired}


class VideosParameters(_Stage):
    """Which videos are taken, and how they are listed."""

    listing: Literal["uploads", "search"] = Field(
        "uploads",
        description="youtube: `uploads` reads the channel's uploads playlist (1 quota unit for "
        "50 videos), `search` the search endpoint (100 units for 50 videos, as in the article).",
    )
    min_duration_seconds: float = Field(
        180.0,
        ge=0,
        description="Videos of so many seconds or fewer are left out: shorts may be three minutes "
        "long. 179 is the article's limit; 0 keeps all.",
    )
    expiration_hours: Annotated[float, CHANGES_NOTHING] = Field(
        24.0,
        ge=0,
        description="A fetched list of videos is used again for so many hours; 0: ask every time.",
    )
    daily_quota: Annotated[int, CHANGES_NOTHING] = Field(
        10_000,
        ge=1,
        description="youtube: quota units that a key may spend in a day, which begins at midnight "
        "Pacific time; a call beyond that is not made.",
    )


class SplitParameters(_Stage):
    """How videos are divided into train, valid and test."""

    method: Literal["hash", "time", "shuffle", "given"] = Field(
        "hash",
        description="`hash`: a video keeps its split as the channel grows; `time`: the newest "
        "videos are test, the oldest train; `shuffle`: the article's seeded shuffle; `given`: the "
        "splits that a hub dataset came with.",
    )
    train: float = Field(0.7, gt=0, lt=1, description="Share of the videos to train on, 0 to 1.")
    valid: float = Field(
        0.15, gt=0, lt=1, description="Share of the videos to validate on; the rest is for test."
    )
    min_rows: int = Field(4, ge=2, description="A split with fewer videos than this stops the run.")

    @model_validator(mode="after")
    def _leaves_a_test_split(self) -> Self:
        if self.train + self.valid > 1 or math.isclose(self.train + self.valid, 1):
            raise ValueError(
                f"split.train + split.valid is {self.train + self.valid:g}; it must be below 1 so "
                "that videos are left for test. Lower split.train or split.valid."
            )
        return self


class NegativesParameters(_Stage):
    """Which title stands as the wrong one beside each thumbnail."""

    method: Literal["least_similar", "hard", "clip", "random", "none", "given"] = Field(
        "least_similar",
        description="`least_similar`: the article's, each title serves once; `hard`: the most "
        "similar title below the ceiling; `clip`: the title that the untouched CLIP itself takes "
        "most for the thumbnail's, below the margin; `random`; `none`: in-batch negatives only; "
        "`given`: the title_neg column of a hub dataset.",
    )
    scope: Literal["within_split", "before_split"] = Field(
        "within_split",
        description="`within_split`: no test title is seen in training; `before_split`: mined "
        "over all videos at once, as in the article.",
    )
    text_model: str = Field(
        "sentence-transformers/all-mpnet-base-v2",
        min_length=1,
        description="Hub id or folder of the sentence-transformers model that compares titles.",
    )
    ceiling: float = Field(
        0.9, gt=-1, le=1, description="hard: cosine similarity that a negative must stay below."
    )
    margin: float = Field(
        0.0,
        ge=0,
        le=2,
        description="clip: by how much a negative's cosine similarity with the thumbnail must stay "
        "below that of the own title.",
    )

    @property
    def compares_titles(self) -> bool:
        """Whether a text model is needed."""
        return self.method in ("least_similar", "hard")


class ThumbnailsParameters(_Stage):
    """How thumbnails are fetched and what is accepted."""

    quality: Literal["best", "high"] = Field(
        "best",
        description="`best`: the largest that YouTube has; `high`: the article's 480x360.",
    )
    crop_letterbox: bool = Field(
        True, description="Cut off the black bars that pad a 16:9 picture to 4:3."
    )
    max_bad_share: float = Field(
        0.1, ge=0, le=1, description="The run stops if a larger share of thumbnails is unusable."
    )
    max_megapixels: float = Field(
        20.0, gt=0, description="A picture of more megapixels is refused unread."
    )
    batch_size: Annotated[int, CHANGES_NOTHING] = Field(
        100, ge=1, le=1000, description="Thumbnails per Prefect task."
    )
    concurrency: Annotated[int, CHANGES_NOTHING] = Field(
        8, ge=1, le=64, description="Simultaneous downloads per task."
    )
    timeout_seconds: Annotated[float, CHANGES_NOTHING] = Field(
        20.0, gt=0, description="Time limit of one try at a download."
    )
    expiration_days: float = Field(
        30.0,
        ge=0,
        le=36_500,
        description="After so many days it is asked whether a URL has another picture by now; what "
        "is unchanged is not downloaded again. 0: ask in every run.",
    )
    allowed_hosts: tuple[Annotated[str, Field(pattern=HOST_RULE)], ...] = Field(
        ("*.ytimg.com", "*.ggpht.com", "img.youtube.com"),
        min_length=1,
        description="Hosts that thumbnails may come from, by https; `*.example.org` stands for all "
        "below it. Hosts of a private network are a setting of the machine: SECURITY.md.",
    )


class FeaturesParameters(_Stage):
    """How the frozen towers are run."""

    precision: WantedPrecision = Field(
        "auto",
        description="Of the frozen towers. `int8` (with the extra `fast`) and `bfloat16` are used "
        "only if a trial on the channel's own videos embeds them nearly as float32 does, and finds "
        "their titles as well. `auto`: float32 for fewer than 300 pictures, and where the "
        "processor gains by neither; else what is fastest here.",
    )
    partition_size: Annotated[int, CHANGES_NOTHING] = Field(
        5000,
        ge=1,
        description="Videos per Prefect task. On Dask and Ray the workers encode several of these "
        "side by side; in threads one follows the other.",
    )


class TrainingParameters(_Stage):
    """Fine-tuning; the defaults are the article's hyperparameters."""

    recipe: Literal["auto", "given"] = Field(
        "auto",
        description="`auto`: of the untouched model, a closed form, the hyperparameters below and "
        "a few more, what does best in folds of the videos that may be learned from; the untouched "
        "model stays if nothing beats it by a standard error. `given`: the hyperparameters below.",
    )
    trainable: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        AUTO,
        min_length=1,
        description="`auto`: CLIP's two projections, as in the article; of other models the last "
        "linear map of each tower, or maps that are added. Anything else: a model parameter is "
        "trained if its name contains one of these fragments. All others are frozen.",
    )
    epochs: int = Field(2, ge=1, le=1000, description="Passes over the pairs of training.")
    batch_size: int = Field(16, ge=2, le=4096, description="Pairs per training step, at most.")
    batches: Literal["no_duplicates", "plain"] = Field(
        "no_duplicates",
        description="`no_duplicates`: no batch holds a title or thumbnail twice, and all are of "
        "nearly the same size; `plain`: rows as the shuffle gives them, as in the article.",
    )
    learning_rate: float = Field(1e-4, gt=0, le=1, description="Peak learning rate of AdamW.")
    scale: float = Field(
        20.0, gt=0, description="MultipleNegativesRankingLoss: factor on the cosine similarities."
    )
    symmetric: bool = Field(
        False, description="Titles must find their thumbnails too, not only thumbnails titles."
    )
    interpolation: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of the trained weights in those that are kept; the rest is the "
        "untouched model's (WiSE-FT, arXiv:2109.01903).",
    )
    keep_best_epoch: bool = Field(
        True,
        description="Keep the epoch of the highest validation MRR, not the last. Where no videos "
        "are kept aside for validation (in folds, in a sweep's trials, and for the recipe that "
        "`auto` has chosen) it is the last.",
    )
    report_to: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], CHANGES_NOTHING] = Field(
        (),
        description="Experiment trackers that are told of each version: mlflow, wandb, tensorboard "
        "or another that transformers knows.",
    )
    processes: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes that train side by side, each with a GPU of its own and its share "
        "of every batch. A sweep's trials take one.",
    )

    @field_validator("trainable", mode="before")
    @classmethod
    def _one_is_a_list_too(cls, asked: Any) -> Any:
        return (asked,) if isinstance(asked, str) else asked

    @field_validator("trainable")
    @classmethod
    def _auto_stands_alone(cls, asked: tuple[str, ...]) -> tuple[str, ...]:
        if set(AUTO) & set(asked) and asked != AUTO:
            raise ValueError("`auto` stands alone. Leave it out, or all the names.")
        return asked

    @model_validator(mode="after")
    def _batches_can_be_shared(self) -> Self:
        if self.batch_size % self.processes:
            raise ValueError(
                f"training.batch_size is {self.batch_size}, which training.processes="
                f"{self.processes} do not divide. Choose a multiple of {self.processes}."
            )
        return self


class EvaluationParameters(_Stage):
    """What is measured."""

    retired = frozenset({"bootstrap_samples"})

    method: Literal["auto", "cross_fit", "holdout"] = Field(
        "auto",
        description="`holdout`: measured on the test split, which nothing has learned from; "
        "`cross_fit`: on every video, by models of folds that have not learned from it, while the "
        "model that is kept learns from all; `auto`: cross_fit below 500 videos, holdout from "
        "there on, and for splits or negatives that are made for a holdout.",
    )
    recall_at: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 5, 10), min_length=1, description="The k of Recall@k."
    )

    @model_validator(mode="after")
    def _has_the_headline_figure(self) -> Self:
        if 1 not in self.recall_at:
            raise ValueError(
                f"evaluation.recall_at is {self.recall_at}; add 1, since Recall@1 is what runs "
                "are compared by."
            )
        return self


class PromotionParameters(_Stage):
    """When a trained model becomes the channel's champion."""

    retired = frozenset({"bootstrap_samples"})

    metric: DecidingMetric = Field(
        PRIMARY, description="What is compared, from thumbnail to title."
    )
    rule: Literal["higher", "better", "not_worse"] = Field(
        "higher",
        description="Against the champion and the untouched model: `higher`: the metric is below "
        "neither; `better`: the whole 95 % interval of the difference is above zero; `not_worse`: "
        "the whole interval is above minus promotion.margin.",
    )
    margin: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="By so much the metric may be lower by the rule `not_worse`, at most.",
    )
    keep_models: Annotated[int, CHANGES_NOTHING] = Field(
        5,
        ge=1,
        description="So many of the newest versions, and of the last champions, keep their "
        "weights; of older ones only the record stays.",
    )


class PublishParameters(_Stage):
    """Optional push to the Hugging Face hub (needs HF_TOKEN in the environment)."""

    model_repo: str | None = Field(
        None,
        pattern=r"^[\w.-]+/[\w.-]+$",
        description="owner/name of the model repository to push to.",
    )
    dataset_repo: str | None = Field(
        None,
        pattern=r"^[\w.-]+/[\w.-]+$",
        description="owner/name of the dataset repository to push to.",
    )
    model_license: str = Field(
        "apache-2.0",
        pattern=LICENSE,
        description="License that the model card names, by the hub's short name for it. CLIP's own "
        "terms hold beside it.",
    )
    dataset_license: str = Field(
        "other",
        pattern=LICENSE,
        description="The same of the dataset card; thumbnails and titles belong to who made them.",
    )
    private: Annotated[bool, CHANGES_NOTHING] = Field(
        True, description="Create the repositories as private."
    )


def _none_if_empty(asked: Any) -> Any:
    """A form's field that nothing was written into."""
    return None if asked == "" else asked


AS_TEXT = WithJsonSchema({"type": "string"})
"""A field for text in Prefect's form, where a choice between text and nothing would be offered."""


class TrainParameters(_Stage):
    """Adapt CLIP to one YouTube channel's titles and thumbnails."""

    channel: Annotated[str | None, BeforeValidator(_none_if_empty), AS_TEXT] = Field(
        None,
        description="youtube: channel id (UC…), @handle or channel URL; folder: a folder with a "
        "manifest or with yt-dlp's *.info.json; hub: a dataset id or a folder with one; `:name` "
        "behind it chooses a configuration.",
    )
    source: SourceName = Field(
        "youtube", description="Where videos come from; `sample` is bundled and needs no key."
    )
    model: str = Field(
        "sentence-transformers/clip-ViT-L-14",
        min_length=1,
        description="Hub id or folder of the CLIP to fine-tune, or `sample` for the bundled one.",
    )
    training: TrainingParameters = Field(TrainingParameters(), description="Fine-tuning.")
    evaluation: EvaluationParameters = Field(
        EvaluationParameters(), description="Metrics and their intervals."
    )
    promotion: PromotionParameters = Field(
        PromotionParameters(), description="Champion and challenger."
    )
    videos: VideosParameters = Field(VideosParameters(), description="Which videos are taken.")
    negatives: NegativesParameters = Field(
        NegativesParameters(), description="The wrong title beside each thumbnail."
    )
    split: SplitParameters = Field(
        SplitParameters(), description="Division into train, valid and test."
    )
    thumbnails: ThumbnailsParameters = Field(
        ThumbnailsParameters(), description="Fetching and checking of thumbnails."
    )
    features: FeaturesParameters = Field(
        FeaturesParameters(), description="Running the frozen towers."
    )
    publish: PublishParameters = Field(
        PublishParameters(), description="Optional push to the Hugging Face hub."
    )
    workspace: Annotated[str, BeforeValidator(str), CHANGES_NOTHING] = Field(
        DEFAULT_WORKSPACE,
        min_length=1,
        description="Folder for everything that a run keeps: a local path, or a URL such as "
        "s3://bucket/folder.",
    )
    seed: int = Field(42, ge=0, lt=2**32, description="Seed of every random choice.")
    refresh: Annotated[bool, CHANGES_NOTHING] = Field(
        False, description="Run every stage again, even those already done for these inputs."
    )

    def for_learning(self) -> Self:
        """The same without what no training and no measure reads, for a key of the cache."""
        read = {"seed", "split", "negatives", "training", "evaluation"}
        others = {
            name: field.default
            for name, field in type(self).model_fields.items()
            if name not in read
        }
        return self.model_copy(update=others)

    def located(self) -> Self:
        """The same from any folder: a local folder of videos by its absolute path."""
        if self.channel is None:
            return self
        absolute = source_named(self.source).absolute(self.channel)
        return self.model_copy(update={"channel": absolute})

    @field_validator("workspace")
    @classmethod
    def _workspace_is_a_path_or_url(cls, workspace: str) -> str:
        return checked_location(workspace)

    @model_validator(mode="after")
    def _channel_fits_source(self) -> Self:
        source = _spelled(self.source)
        if not source.channel_is and self.channel is not None:
            others = [name for name, other in usable_sources().items() if other.channel_is]
            raise ValueError(
                f"channel={self.channel!r} is given but source is `{self.source}`, which has its "
                f"own videos. Leave channel out, or set source to {' or '.join(_listed(others))}."
            )
        if source.channel_is and self.channel is None:
            told = {name: other.channel_is for name, other in usable_sources().items()}
            needs = "; ".join(f"for {name} {what}" for name, what in told.items() if what)
            raise ValueError(
                f"channel is missing: source `{self.source}` needs one ({needs}). "
                "To try the bundled channel, set source to sample."
            )
        if self.channel is not None:
            try:
                source.check_spelling(self.channel)
            except SourceError as error:
                raise ValueError(str(error)) from None
        return self

    @model_validator(mode="after")
    def _given_columns_come_with_the_source(self) -> Self:
        for name, method in (("split", self.split.method), ("negatives", self.negatives.method)):
            if method == "given" and name not in _spelled(self.source).brings:
                bring = [f"`{each}`" for each, it in usable_sources().items() if name in it.brings]
                raise ValueError(
                    f"{name}.method is `given`, but only source {' or '.join(bring)} brings its "
                    f"own; source is `{self.source}`. Choose another {name}.method."
                )
        return self

    @model_validator(mode="after")
    def _folds_are_of_hashed_splits(self) -> Self:
        for name, value in made_for_a_holdout(self).items():
            if self.evaluation.method == "cross_fit":
                raise ValueError(
                    f"evaluation.method is `cross_fit`, but {name} is `{value}`, which is made for "
                    f"one test split. Set evaluation.method to holdout, or leave {name} out."
                )
        return self


def in_rows(parameters: TrainParameters) -> list[tuple[str, str]]:
    """Each parameter by its name on the command line, and its value in words."""
    rows = []
    for name, value in parameters.model_dump(mode="json").items():
        stage = value if isinstance(value, dict) else {"": value}
        rows += [
            (f"{name}.{field}".rstrip("."), _in_words(setting)) for field, setting in stage.items()
        ]
    return rows


def _in_words(setting: Any) -> str:
    if isinstance(setting, list):
        return ", ".join(map(str, setting)) or "none"
    return "none" if setting is None else str(setting)


FOLDS = 5
SMALL = 500
"""Videos; of fewer a test split of 15 % is too small to tell much."""


def in_folds(parameters: TrainParameters, videos: int) -> bool:
    """Whether so many videos are measured by a cross-fit."""
    method = parameters.evaluation.method
    if method == "auto":
        return videos < SMALL and not made_for_a_holdout(parameters)
    return method == "cross_fit"


def made_for_a_holdout(parameters: TrainParameters) -> dict[str, str]:
    """The parameters by which videos are split, or paired with negatives, once for all."""
    split, negatives = parameters.split, parameters.negatives
    return {
        name: value
        for name, value, usual in (
            ("split.method", split.method, split.method == "hash"),
            ("negatives.method", negatives.method, negatives.method != "given"),
            ("negatives.scope", negatives.scope, negatives.scope == "within_split"),
        )
        if not usual
    }


def _spelled(source: str) -> Spelled:
    """What is known of a source; ValueError if it cannot be loaded, as pydantic wants it."""
    try:
        spelled: Spelled = source_named(source)
    except SourceError as error:
        raise ValueError(str(error)) from None
    return spelled


def _listed(names: Sequence[str]) -> list[str]:
    """As words of a sentence: all but the last, and the last."""
    return [", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names)


class WatchParameters(_Stage):
    """Look for new videos of some channels, and start training where there are enough."""

    channels: Path = Field(
        Path("channels.yaml"),
        description="YAML file: `channels`, a list of train parameters, each with its channel, "
        "and `defaults` for all of them.",
    )
    min_new: int = Field(5, ge=1, description="So many new videos start a training.")
    max_age_days: float = Field(
        30.0, gt=0, description="After so many days one new video is enough."
    )
    retry_hours: float = Field(
        24.0, gt=0, description="The same new videos start a training again after so many hours."
    )
    start: Literal["event", "here"] = Field(
        "event",
        description="`event`: the trigger of the train deployment starts the training on a "
        "worker; `here`: this run trains, one channel after the other.",
    )


class SearchParameters(_Stage):
    """How hyperparameters are searched."""

    trials: int = Field(
        40,
        ge=1,
        le=10_000,
        description="Recipes to try; the first is the article's. Raise it later to search on.",
    )
    folds: Annotated[int, Field(ge=1, le=20)] | None = Field(
        None,
        description="Parts of train and valid that each stand once as validation; 1 validates on "
        "the valid split. Left out: 5 for fewer than 500 videos, else 1.",
    )
    seeds: int = Field(
        5, ge=1, le=100, description="Seeds with which the choice is measured on test at the end."
    )


class SweepParameters(TrainParameters):
    """Search the hyperparameters with which CLIP adapts best to one YouTube channel."""

    sweep: SearchParameters = Field(
        SearchParameters(), description="Search of hyperparameters by validation."
    )

    def for_training(self) -> TrainParameters:
        """Those of them that the train flow has; `refresh` is over when the search begins."""
        shared = {name: getattr(self, name) for name in TrainParameters.model_fields}
        return TrainParameters(**{**shared, "refresh": False})


P = TypeVar("P", bound=BaseModel)


def made_of(model: type[P], values: Mapping[str, Any]) -> P:
    """Parameters from their values.

    Raises:
        ParametersError: they do not fit together; it names each field with the mend.
    """
    try:
        return model(**values)
    except ValidationError as error:
        told = [
            said if said.startswith(field) else f"{field}: {said}"
            for field, said in problems_of(error)
        ]
        raise ParametersError("; ".join(told)) from None


def takes(model: type[P]) -> Callable[[Callable[[P], Any]], Callable[..., Any]]:
    """Give a flow function the fields of `model` as its own keyword parameters.

    Prefect reads a flow's form from its signature. With one field a parameter, a run may override
    `channel` alone; with the whole model as a single parameter, any override would replace all.

    Args:
        model: a pydantic model; its fields become the parameters, their descriptions the help.

    Returns:
        A decorator for a function of one argument, an instance of `model`.
    """
    fields = model.model_fields

    def decorate(body: Callable[[P], Any]) -> Callable[..., Any]:
        def flow_function(**values: Any) -> Any:
            return body(made_of(model, values))

        flow_function.__name__ = body.__name__
        flow_function.__qualname__ = body.__qualname__
        flow_function.__module__ = body.__module__
        help_lines = [f"    {name}: {field.description}" for name, field in fields.items()]
        flow_function.__doc__ = "\n".join([inspect.getdoc(body) or "", "", "Args:", *help_lines])
        flow_function.__annotations__ = {name: _annotation(field) for name, field in fields.items()}
        flow_function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(
                    name,
                    inspect.Parameter.KEYWORD_ONLY,
                    annotation=_annotation(field),
                    default=field.get_default(call_default_factory=True),
                )
                for name, field in fields.items()
            ]
        )
        return flow_function

    return decorate


def _annotation(field: Any) -> Any:
    """The field's type with its bounds, so that Prefect's form checks them too."""
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
