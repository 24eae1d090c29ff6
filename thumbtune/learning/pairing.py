"""Negatives from CLIP itself: the wrong titles that it takes most for a thumbnail's."""

from collections.abc import Sequence

from sentence_transformers import SentenceTransformer

from thumbtune.clip.features import head_of
from thumbtune.clip.models import load_model
from thumbtune.clip.towers import Precision
from thumbtune.clip.trainable import set_trainable
from thumbtune.data.negatives import Pair, pair_titles
from thumbtune.data.thumbnails import Example
from thumbtune.learning.evaluation import embed_videos
from thumbtune.parameters import NegativesParameters
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Table, Workspace


def pair_by_clip(
    reader: SentenceTransformer,
    workspace: Workspace,
    examples: Sequence[Example],
    parameters: NegativesParameters,
) -> list[Example]:
    """Give each example the negative that a model takes most for right, below the margin.

    Args:
        reader: the untouched CLIP, or its head on stored features.

    Raises:
        NoNegativeError: all titles that a negative may come from are equal.
    """
    embedded = embed_videos(reader, workspace, examples)
    pairs = pair_titles(examples, parameters, 0, lambda _: embedded.titles, embedded.images)
    return with_negatives_of(pairs, examples)


def with_negatives_of(pairs: Sequence[Pair], examples: Sequence[Example]) -> list[Example]:
    """The examples with the negatives of pairs in the same order."""
    return [
        row.model_copy(update={"title_neg": pair.title_neg})
        for row, pair in zip(examples, pairs, strict=True)
    ]


def pair_examples_by_clip(
    workspace: Workspace,
    model: ModelReference,
    examples: Table,
    fragments: Sequence[str],
    parameters: NegativesParameters,
    precision: Precision,
) -> Table:
    """`pair_by_clip` of a table of `Example`, by stored features where there are some.

    Args:
        fragments: of the names of the parameters that will be trained.
    """
    loaded = load_model(model, workspace)
    set_trainable(loaded, fragments)
    rows = workspace.read_table(examples, Example)
    reader, _ = head_of(workspace, loaded, rows, precision)
    paired = pair_by_clip(reader, workspace, rows, parameters)
    return workspace.write_table("examples", paired, examples.dropped)
