"""Push the model and the dataset to the Hugging Face hub, if asked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, Features, Image, Value
from huggingface_hub import DatasetCard, HfApi

from thumbtune.clip.shards import in_one_piece
from thumbtune.data.thumbnails import Example, stored_picture
from thumbtune.hub.rights import told_plainly
from thumbtune.parameters import SPLITS
from thumbtune.reporting.cards import public_address
from thumbtune.store.workspace import Workspace


def build_dataset(workspace: Workspace, examples: Sequence[Example]) -> DatasetDict:
    """The article's dataset: video_id, title, thumbnail_url, title_neg in three splits.

    If any thumbnail came from a file of this machine, there is a column `image` with the pictures
    themselves, as they were fetched, instead of thumbnail_url. The source `hub` reads both.
    """
    public = all(public_address(example) for example in examples)
    features: dict[str, Any] = {"video_id": Value("string"), "title": Value("string")}
    features |= {"thumbnail_url": Value("string")} if public else {"image": Image()}
    features["title_neg"] = Value("string")

    def row(example: Example) -> dict[str, Any]:
        picture: Any = public_address(example)
        if not public:
            picture = {"bytes": stored_picture(workspace, example.image).read_bytes(), "path": None}
        name = "thumbnail_url" if public else "image"
        return {
            "video_id": example.id,
            "title": example.title,
            name: picture,
            "title_neg": example.title_neg,
        }

    return DatasetDict(
        {
            split: Dataset.from_list(
                [row(example) for example in examples if example.split == split],
                features=Features(features),
            )
            for split in SPLITS
        }
    )


def push_model(folder: Path, repo: str, private: bool, token: str) -> str:
    """Upload a model's folder; the address of the commit, of the last one if nothing is new.

    Args:
        private: for a new repository; one that exists stays as it is.

    Raises:
        PublishError: wrong token or no permission.
        RetryablePublishError: the hub does not answer.
    """
    with told_plainly(repo):
        api = HfApi(token=token)
        api.create_repo(repo, private=private, exist_ok=True)
        with in_one_piece(folder) as whole:
            commit = api.upload_folder(
                repo_id=repo,
                folder_path=whole,
                ignore_patterns=[".*"],
                commit_message="Fine-tune on titles and thumbnails",
            )
        return commit.commit_url


def push_dataset(dataset: DatasetDict, card: Path, repo: str, private: bool, token: str) -> str:
    """Upload a dataset and its card; the address of the last commit. Raises as `push_model`."""
    with told_plainly(repo):
        dataset.push_to_hub(
            repo,
            private=private,
            token=token,
            commit_message="Add titles and thumbnails",
        )
        return _add_card(card, repo, token)


def _add_card(card: Path, repo: str, token: str) -> str:
    """Add our text to the card in which push_to_hub has just described the files."""
    written = DatasetCard.load(repo, token=token)
    ours = DatasetCard(card.read_text(encoding="utf-8"))
    for field, value in ours.data.to_dict().items():
        setattr(written.data, field, value)
    written.text = ours.text
    commit = HfApi(token=token).upload_file(
        path_or_fileobj=str(written).encode(),
        path_in_repo="README.md",
        repo_id=repo,
        repo_type="dataset",
        commit_message="Describe the dataset",
    )
    return commit.commit_url
