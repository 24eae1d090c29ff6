"""The loss: multiple negatives ranking."""

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.util.distributed import all_gather, all_gather_with_grad, get_world_size
from torch import Tensor

from thumbtune.parameters import TrainingParameters


def ranking_loss(
    model: SentenceTransformer, parameters: TrainingParameters
) -> MultipleNegativesRankingLoss:
    """Multiple negatives ranking loss (arXiv:1705.00652), as CLIP's own from both sides if asked.

    A thumbnail must pick its title among those of the batch and its negatives; if symmetric, each
    title must pick its thumbnail too, with half the weight.
    """
    loss = GatheredRankingLoss if get_world_size() > 1 else MultipleNegativesRankingLoss
    if not parameters.symmetric:
        return loss(model, scale=parameters.scale)
    return loss(
        model,
        scale=parameters.scale,
        directions=("query_to_doc", "doc_to_query"),
        partition_mode="per_direction",
    )


class GatheredRankingLoss(MultipleNegativesRankingLoss):
    """The loss of a batch whose rows are shared by several processes; each computes it whole.

    The gradient of an embedding is summed over the processes and the weights' is their mean, which
    makes it that of one process. (The library's `gather_across_devices` takes the mean of each
    share, so shares of other sizes would weigh otherwise.)
    """

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor) -> Tensor:
        """Of all processes' rows but those that fill up.

        Args:
            embeddings: of this process, a matrix for each column, each shape (rows, dimensions).
            labels: 0 for rows that fill up, 1 for others, shape (rows,).
        """
        real = all_gather(labels) > 0
        gathered = [all_gather_with_grad(column)[real] for column in embeddings]
        return super().compute_loss_from_embeddings(gathered, labels)
