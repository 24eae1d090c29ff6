"""What `fine_tune` does to two projections, without a Trainer around it.

A choice in folds and a sweep train dozens to hundreds of times, and most of a Trainer's step is
bookkeeping. The batches, the loss, the optimizer and its schedule are the Trainer's, and so are the
weights, up to rounding.
"""

from collections.abc import Sequence

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from transformers import get_linear_schedule_with_warmup

from thumbtune.clip.ends import Kind
from thumbtune.clip.features import reads_features
from thumbtune.clip.head import Head
from thumbtune.data.thumbnails import Example
from thumbtune.learning.batches import SAMPLERS
from thumbtune.learning.columns import feature_columns
from thumbtune.learning.loss import ranking_loss
from thumbtune.learning.pooled import end_of, pooled_of
from thumbtune.learning.weights import interpolate, set_parameters, trainable_parameters
from thumbtune.parameters import TrainingParameters

COLUMNS: dict[str, Kind] = {"anchor": "image", "positive": "text", "negative": "text"}
LONGEST_GRADIENT = 1.0
"""The Trainer's default of `max_grad_norm`."""


def trains_projections_alone(model: SentenceTransformer) -> bool:
    """Whether a model is a head on stored features of which the projections train, nothing else."""
    if not reads_features(model):
        return False
    training = {id(each) for each in model.parameters() if each.requires_grad}
    head = end_of(model)
    return head.ends_in_maps and training == {id(end.linear.weight) for end in head.ends.values()}


def fine_tune_projections(
    model: SentenceTransformer,
    train: Sequence[Example],
    parameters: TrainingParameters,
    seed: int,
) -> None:
    """Train the two projections of a head in place, to the last epoch.

    Args:
        model: for which `trains_projections_alone` holds.
    """
    columns, head = feature_columns(train), end_of(model)
    sampler = SAMPLERS[parameters.batches](
        columns, parameters.batch_size, generator=torch.Generator().manual_seed(seed), seed=seed
    )
    untouched = trainable_parameters(model)
    weights = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(weights, parameters.learning_rate, weight_decay=0.0, fused=True)
    steps = parameters.epochs * len(sampler)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, steps)
    loss = ranking_loss(model, parameters)
    pooled = {name: pooled_of(head, keys) for name, keys in columns.items()}
    for epoch in range(parameters.epochs):
        sampler.set_epoch(epoch)
        for batch in sampler:
            embedded = _embedded(head, {name: rows[batch] for name, rows in pooled.items()})
            loss.compute_loss_from_embeddings(embedded, torch.empty(0)).backward()
            clip_grad_norm_(weights, LONGEST_GRADIENT)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    trained = trainable_parameters(model)
    set_parameters(model, interpolate(untouched, trained, parameters.interpolation))


def _embedded(head: Head, batch: dict[str, Tensor]) -> list[Tensor]:
    """Of each column the vectors, shape (rows, dimensions)."""
    return [head.ends[COLUMNS[name]][1](rows) for name, rows in batch.items()]
