"""Listing the videos of a dataset that was saved, or that is on the hub."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import (
    ClassLabel,
    Dataset,
    DatasetDict,
    Features,
    Image,
    LargeList,
    List,
    Translation,
    Value,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Picture

from tests.hub_server import HubServer, run_python
from thumbtune.channel.listing import Video
from thumbtune.channel.sources.hub.listing import list_hub
from thumbtune.channel.videos import list_videos
from thumbtune.data.splits import SplitsNotGivenError, divide_videos
from thumbtune.data.thumbnails import ThumbnailStore
from thumbtune.errors import SourceError
from thumbtune.parameters import SplitParameters, ThumbnailsParameters, VideosParameters
from thumbtune.store.workspace import Workspace

URL = "https://i.ytimg.com/vi/a/hqdefault.jpg"


def rows(*ids: str) -> Dataset:
    return Dataset.from_list(
        [
            {
                "video_id": video_id,
                "title": f"Title {video_id}",
                "thumbnail_url": f"https://i.ytimg.com/vi/{video_id}/hqdefault.jpg",
                "title_neg": f"Not {video_id}",
            }
            for video_id in ids
        ]
    )


def test_a_saved_dataset_keeps_its_splits_and_negatives(
    tmp_path: Path, workspace: Workspace
) -> None:
    saved = DatasetDict(train=rows("a", "b"), validation=rows("c"), test=rows("d"))
    saved.save_to_disk(tmp_path / "saved")
    videos = list_hub(workspace, str(tmp_path / "saved"))
    assert [video.split for video in videos] == ["train", "train", "valid", "test"]
    assert videos[0].title_neg == "Not a"
    assert videos[3].thumbnails == {"high": "https://i.ytimg.com/vi/d/hqdefault.jpg"}


def test_a_lone_split_divides_nothing(tmp_path: Path, workspace: Workspace) -> None:
    rows("a", "b").save_to_disk(tmp_path / "saved")
    assert [v.split for v in list_hub(workspace, str(tmp_path / "saved"))] == [None, None]


@pytest.mark.compatibility
def test_pictures_in_the_dataset_are_put_into_the_workspace(
    tmp_path: Path, workspace: Workspace
) -> None:
    file = io.BytesIO()
    Picture.new("RGB", (64, 48), "red").save(file, "PNG")
    features = Features({"video_id": Value("string"), "title": Value("string"), "image": Image()})
    row = {"video_id": "a", "title": "A", "image": {"bytes": file.getvalue(), "path": None}}
    Dataset.from_list([row], features=features).save_to_disk(tmp_path / "saved")
    [video] = list_hub(workspace, str(tmp_path / "saved"))
    assert workspace.read(video.thumbnails["file"]) == file.getvalue()
    store = ThumbnailStore(workspace, ThumbnailsParameters(), refresh=False)
    assert workspace.read(str(store.get(video).image)) == file.getvalue()


def test_a_dataset_cannot_name_a_file_of_this_machine(tmp_path: Path, workspace: Workspace) -> None:
    (tmp_path / "mine.png").write_bytes(b"not for a model")
    image = {"bytes": None, "path": str(tmp_path / "mine.png")}
    columns = {"bytes": Value("binary"), "path": Value("string")}
    features = Features({"video_id": Value("string"), "title": Value("string"), "image": columns})
    row = {"video_id": "a", "title": "A", "image": image}
    Dataset.from_list([row], features=features).save_to_disk(tmp_path / "saved")
    with pytest.raises(SourceError, match=r"image '.*mine\.png' lies outside of it"):
        list_hub(workspace, str(tmp_path / "saved"))


def test_a_missing_column_is_an_error_that_lists_the_columns(
    tmp_path: Path, workspace: Workspace
) -> None:
    Dataset.from_dict({"video_id": ["a"], "name": ["A"]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(
        SourceError, match=r"lacks the column title, thumbnail_url .*video_id, name"
    ):
        list_hub(workspace, str(tmp_path / "saved"))


def test_a_dataset_that_is_nowhere_is_an_error_with_the_mend(workspace: Workspace) -> None:
    with pytest.raises(
        SourceError, match=r"channel: .*'nobody/nothing'.*(HF_HUB_OFFLINE|spelling)"
    ):
        list_videos(workspace, "hub", "nobody/nothing", VideosParameters())


def encoded(color: str = "red") -> bytes:
    file = io.BytesIO()
    Picture.new("RGB", (64, 48), color).save(file, "PNG")
    return file.getvalue()


def saved(folder: Path, columns: dict[str, tuple[Any, list[Any]]]) -> str:
    """A dataset of columns: name → type and values; those of a video are there if not given."""
    rows = len(next(iter(columns.values()))[1])
    usual = {
        "video_id": (Value("string"), [f"id{row}" for row in range(rows)]),
        "title": (Value("string"), [f"Title {row}" for row in range(rows)]),
        "thumbnail_url": (Value("string"), [URL] * rows),
    }
    columns = {**usual, **columns}
    if "image" in columns:
        del columns["thumbnail_url"]
    features = Features({name: feature for name, (feature, _) in columns.items()})
    values = {name: values for name, (_, values) in columns.items()}
    Dataset.from_dict(values, features=features).save_to_disk(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("feature", "values", "titles"),
    [
        (ClassLabel(names=["One", "Two"]), [1, 0, -1, None], ["Two", "One", "", ""]),
        (List(Value("string")), [["a", "b"], ["\u200b", "c"], [], None], ["a", "c", "", ""]),
        (LargeList(Value("string")), [["a", "b"]], ["a"]),
        (List(Value("string"), length=1), [["a"]], ["a"]),
        (List(ClassLabel(names=["One"])), [[0]], ["One"]),
        (Value("large_string"), [" a ", None, "None"], ["a", "", "None"]),
        (Value("int64"), [0, 1984, None], ["0", "1984", ""]),
    ],
)
def test_titles_of_one_meaning_are_taken_as_text(
    tmp_path: Path, workspace: Workspace, feature: Any, values: list[Any], titles: list[str]
) -> None:
    notes: list[str] = []
    name = saved(tmp_path / "saved", {"title": (feature, values)})
    assert [video.title for video in list_hub(workspace, name, notes.append)] == titles
    lists = isinstance(feature, (List, LargeList))
    assert ["the first entry of each is taken" in note for note in notes] == [True] * lists


def test_ids_may_be_numbers_and_rows_without_one_are_counted(
    tmp_path: Path, workspace: Workspace
) -> None:
    name = saved(tmp_path / "saved", {"video_id": (Value("int64"), [0, None, 7, 7])})
    listing = list_videos(workspace, "hub", name, VideosParameters())
    assert [video.id for video in listing.videos] == ["0", "7"]
    assert listing.dropped == {"no id": 1, "listed twice": 1}


def test_a_title_of_invisible_characters_is_none(tmp_path: Path, workspace: Workspace) -> None:
    titles = ["A", "\u200b", "\u2060\ufe0f ", None]
    name = saved(tmp_path / "saved", {"title": (Value("string"), titles)})
    listing = list_videos(workspace, "hub", name, VideosParameters())
    assert (len(listing.videos), listing.dropped) == (1, {"no title": 3})


@pytest.mark.parametrize(
    ("feature", "value"),
    [
        (Value("binary"), encoded()),
        (Value("large_binary"), encoded()),
        ({"bytes": Value("binary"), "path": Value("string")}, {"bytes": encoded(), "path": None}),
        ({"bytes": Value("binary")}, {"bytes": encoded()}),
        (Image(decode=False), {"bytes": encoded(), "path": "a.png"}),
    ],
)
def test_pictures_come_as_bytes_or_as_structs(
    tmp_path: Path, workspace: Workspace, feature: Any, value: Any
) -> None:
    name = saved(tmp_path / "saved", {"image": (feature, [value, None])})
    first, second = list_hub(workspace, name)
    assert workspace.read(first.thumbnails["file"]) == encoded()
    assert second.thumbnails == {}


@pytest.mark.parametrize(
    "feature", [Value("string"), Value("large_string"), {"path": Value("string")}]
)
def test_addresses_in_image_are_fetched_as_thumbnails(
    tmp_path: Path, workspace: Workspace, feature: Any
) -> None:
    value = {"path": URL} if isinstance(feature, dict) else URL
    name = saved(tmp_path / "saved", {"image": (feature, [value, None])})
    assert [video.thumbnails for video in list_hub(workspace, name)] == [{"high": URL}, {}]


@pytest.mark.parametrize(
    ("column", "feature", "value"),
    [
        ("title", Translation(["en", "fr"]), {"en": "a", "fr": "b"}),
        ("title", Value("bool"), True),
        ("title", List(List(Value("string"))), [["a"]]),
        ("title", {"text": Value("string")}, {"text": "a"}),
        ("video_id", List(Value("string")), ["a"]),
        ("video_id", Value("float64"), 1.5),
        ("thumbnail_url", List(Value("string")), [URL]),
        ("image", List(Image()), [{"bytes": encoded(), "path": None}]),
        ("image", Value("int64"), 3),
        ("image", {"width": Value("int64")}, {"width": 3}),
        ("title_neg", Value("timestamp[s]"), 3),
    ],
)
def test_a_column_of_another_type_is_an_error_that_names_it(
    tmp_path: Path, workspace: Workspace, column: str, feature: Any, value: Any
) -> None:
    name = saved(tmp_path / "saved", {column: (feature, [value])})
    with pytest.raises(SourceError, match=f"channel: the column '{column}' of .* it must hold"):
        list_hub(workspace, name)


def test_an_empty_column_is_of_any_type(tmp_path: Path, workspace: Workspace) -> None:
    name = saved(tmp_path / "saved", {"title_neg": (Value("float64"), [None, None])})
    assert [video.title_neg for video in list_hub(workspace, name)] == [None, None]


scalars = st.sampled_from(
    [
        *(pa.string(), pa.large_string(), pa.int8(), pa.uint64(), pa.float32(), pa.bool_()),
        *(pa.null(), pa.binary(), pa.date32(), pa.timestamp("us"), pa.decimal128(9, 2)),
    ]
)
types = st.recursive(
    scalars,
    lambda inner: st.one_of(
        inner.map(pa.list_),
        inner.map(pa.large_list),
        st.dictionaries(st.sampled_from(["bytes", "path", "x"]), inner, min_size=1).map(
            lambda fields: pa.struct(list(fields.items()))
        ),
    ),
    max_leaves=3,
)


@pytest.mark.slow
@given(
    columns=st.dictionaries(
        st.sampled_from(
            ["video_id", "id", "Title", "title", "thumbnail_url", "image", "title_neg"]
        ),
        types,
        min_size=2,
    ),
    data=st.data(),
)
def test_columns_of_any_types_are_read_or_refused_in_one_way(
    tmp_path_factory: pytest.TempPathFactory,
    columns: dict[str, pa.DataType],
    data: st.DataObject,
) -> None:
    workspace = Workspace.open(tmp_path_factory.mktemp("workspace"))
    table = {name: pa.array(data.draw(values_of(kind)), kind) for name, kind in columns.items()}
    Dataset(pa.table(table)).save_to_disk(workspace.root / "saved")
    said = ""
    videos: list[Video] = []
    try:
        videos = list_hub(workspace, str(workspace.root / "saved"))
    except SourceError as refused:
        said = str(refused)
    about = [f"the column {name!r} of" in said for name in columns]
    assert len(videos) == 2 or any(about) or said.startswith("channel: the dataset")
    assert [Video.model_validate_json(video.model_dump_json()) for video in videos] == videos


def values_of(kind: pa.DataType) -> st.SearchStrategy[list[Any]]:
    """Two values of a type, of which some are missing."""
    return st.lists(st.none() | value_of(kind), min_size=2, max_size=2)


def value_of(kind: pa.DataType) -> st.SearchStrategy[Any]:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return st.lists(st.none() | value_of(kind.value_type), max_size=2)
    if pa.types.is_struct(kind):
        return st.fixed_dictionaries({field.name: value_of(field.type) for field in kind})
    texts = st.sampled_from(["", "a", "https://i.ytimg.com/a.jpg"])
    known: tuple[tuple[Callable[[pa.DataType], bool], st.SearchStrategy[Any]], ...] = (
        (pa.types.is_string, texts),
        (pa.types.is_large_string, texts),
        (pa.types.is_binary, st.binary(max_size=3)),
        (pa.types.is_boolean, st.booleans()),
        (pa.types.is_null, st.none()),
    )
    return next((values for is_one, values in known if is_one(kind)), st.sampled_from([0, 1]))


@pytest.mark.parametrize(
    "names", [("Video-ID", "TITLE", "Thumbnail URL"), ("id", "Title", "image")]
)
def test_columns_are_found_whatever_their_case(
    tmp_path: Path, workspace: Workspace, names: tuple[str, str, str]
) -> None:
    row = dict(zip(names, ("a", "A", URL), strict=True))
    Dataset.from_list([row]).save_to_disk(tmp_path / "saved")
    [video] = list_hub(workspace, str(tmp_path / "saved"))
    assert (video.id, video.title, video.thumbnails) == ("a", "A", {"high": URL})


def test_two_columns_of_one_name_but_for_case_are_an_error_that_names_both(
    tmp_path: Path, workspace: Workspace
) -> None:
    row = {"video_id": "a", "Title": "A", "TITLE": "B", "thumbnail_url": URL}
    Dataset.from_list([row]).save_to_disk(tmp_path / "saved")
    with pytest.raises(SourceError, match="columns Title and TITLE, which both may be title"):
        list_hub(workspace, str(tmp_path / "saved"))


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev", "eval", "Validation"])
def test_the_valid_split_may_be_called_as_is_usual(
    tmp_path: Path, workspace: Workspace, name: str
) -> None:
    both = DatasetDict({"train": rows("a"), name: rows("b")})
    both.save_to_disk(tmp_path / "saved")
    assert [v.split for v in list_hub(workspace, str(tmp_path / "saved"))] == ["train", "valid"]


def test_an_unknown_split_is_told_and_no_given_one(tmp_path: Path, workspace: Workspace) -> None:
    both = DatasetDict(train=rows("a", "b"), holdout=rows("c"))
    both.save_to_disk(tmp_path / "saved")
    listing = list_videos(workspace, "hub", str(tmp_path / "saved"), VideosParameters())
    assert len(listing.videos) == 3
    [note] = listing.notes
    assert "split 'holdout' (1 rows) is none of train, valid and test" in note
    with pytest.raises(
        SplitsNotGivenError, match=r"1 of 3 videos .* none came in valid.*: train 2, holdout 1"
    ):
        divide_videos(listing.videos, SplitParameters(method="given"), seed=0)


def test_a_video_in_two_splits_counts_once(tmp_path: Path, workspace: Workspace) -> None:
    DatasetDict(train=rows("a", "b"), test=rows("b", "c")).save_to_disk(tmp_path / "saved")
    listing = list_videos(workspace, "hub", str(tmp_path / "saved"), VideosParameters())
    assert [(v.id, v.split) for v in listing.videos] == [
        ("a", "train"),
        ("b", "train"),
        ("c", "test"),
    ]
    assert listing.dropped == {"listed twice": 1}


@pytest.mark.parametrize("format", ["parquet", "csv", "json"])
def test_a_clone_of_a_repository_is_read_with_its_splits(
    tmp_path: Path, workspace: Workspace, format: str
) -> None:
    (tmp_path / "clone" / "data").mkdir(parents=True)
    (tmp_path / "clone" / ".git").mkdir()
    (tmp_path / "clone" / ".git" / "config").write_text("[core]")
    for split, ids in (("train", "ab"), ("validation", "c"), ("test", "d")):
        file = tmp_path / "clone" / "data" / f"{split}-00000-of-00001.{format}"
        getattr(rows(*ids), f"to_{format}")(str(file))
    videos = list_hub(workspace, str(tmp_path / "clone"))
    assert [(video.id, video.split) for video in videos] == [
        ("a", "train"),
        ("b", "train"),
        ("c", "valid"),
        ("d", "test"),
    ]
    assert videos[0].title_neg == "Not a"


@pytest.mark.parametrize("splits", [("",), ("train", "val")])
def test_a_folder_of_pictures_with_their_metadata_is_read(
    tmp_path: Path, workspace: Workspace, splits: tuple[str, ...]
) -> None:
    for split in splits:
        folder = tmp_path / "pictures" / split
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(encoded())
        row = {"file_name": "a.png", "video_id": f"id{split}", "title": "A"}
        (folder / "metadata.jsonl").write_text(json.dumps(row))
    videos = list_hub(workspace, str(tmp_path / "pictures"))
    assert [video.split for video in videos] == ([None] if splits == ("",) else ["train", "valid"])
    assert {workspace.read(video.thumbnails["file"]) for video in videos} == {encoded()}


def test_a_configuration_is_chosen_behind_a_colon(tmp_path: Path, workspace: Workspace) -> None:
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in ("one", "two"):
        rows(name).to_json(str(folder / f"{name}.jsonl"))
    configs = [f"- config_name: {name}\n  data_files: {name}.jsonl" for name in ("one", "two")]
    (folder / "README.md").write_text("\n".join(["---", "configs:", *configs, "---"]))
    assert [video.id for video in list_hub(workspace, f"{folder}:two")] == ["two"]
    with pytest.raises(SourceError, match=r"several configurations: one, two\. Give one, such as"):
        list_hub(workspace, str(folder))
    with pytest.raises(SourceError, match="has no configuration 'three', but one, two"):
        list_hub(workspace, f"{folder}:three")


def test_a_dataset_cannot_name_data_outside_of_it(tmp_path: Path, workspace: Workspace) -> None:
    rows("secret").to_json(str(tmp_path / "secret.jsonl"))
    folder = tmp_path / "clone"
    folder.mkdir()
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files: ../secret.jsonl\n---"
    )
    with pytest.raises(SourceError, match=r"names the file '.*secret\.jsonl', which lies outside"):
        list_hub(workspace, str(folder))


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("train.parquet", b"version https://git-lfs.github.com/spec/v1\nsize 3\n", "git lfs pull"),
        ("train.parquet", b"PAR1 and no more", "Give a folder that save_to_disk wrote"),
        ("train.csv", b"\xff\xfe\x00", "UnicodeDecodeError"),
        ("state.json", b"{}", "Give a folder that save_to_disk wrote"),
        ("notes.xyz", b"nothing", "Give a folder that save_to_disk wrote"),
    ],
)
def test_a_folder_that_cannot_be_read_is_an_error_with_the_mend(
    tmp_path: Path, workspace: Workspace, file: str, content: bytes, said: str
) -> None:
    (tmp_path / "clone").mkdir()
    (tmp_path / "clone" / file).write_bytes(content)
    with pytest.raises(SourceError, match=f"channel: the dataset .* cannot be read .*{said}"):
        list_hub(workspace, str(tmp_path / "clone"))


ASK = """
import os, sys, json
from concurrent.futures import ThreadPoolExecutor
from thumbtune.channel.sources.hub.listing import list_hub
from thumbtune.store.workspace import Workspace

def ask(name, token=""):
    if token:
        os.environ["HF_TOKEN"] = token
    try:
        return [video.id for video in list_hub(Workspace.open({workspace!r}), name)]
    except Exception as error:
        return f"{{type(error).__name__}}: {{error}}"
    finally:
        os.environ.pop("HF_TOKEN", None)

answers = {{name + token: ask(name, token) for name, token in {quick!r}}}
with ThreadPoolExecutor() as pool:  # each of them is tried again for some 25 s
    answers |= zip({slow!r}, pool.map(ask, {slow!r}))
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    folder = tmp_path_factory.mktemp("dataset")
    rows("a").to_parquet(folder / "train.parquet")
    with HubServer() as hub:
        for name in ("open", "busy", "broken", "forbidden"):
            hub.add("dataset", f"owner/{name}", folder)
        hub.add("dataset", "owner/gated", folder, gated=True)
        hub.add("dataset", "owner/private", folder, private=True)
        hub.failures += [("owner/busy", 429)] * 99 + [("owner/broken", 503)] * 99
        hub.failures += [("owner/forbidden", 403)] * 99
        yield hub


def ask_hub(
    hub: HubServer, home: Path, quick: list[tuple[str, str]], slow: list[str], **environment: str
) -> dict[str, Any]:
    """Name and token → the ids listed, or the error."""
    code = ASK.format(workspace=str(home / "workspace"), quick=quick, slow=slow)
    return json.loads(
        run_python(code, hub.environment(home, **environment)).stdout.splitlines()[-1]
    )


@pytest.mark.slow
@pytest.mark.compatibility
def test_the_hubs_refusals_are_told_with_the_mend(hub: HubServer, tmp_path: Path) -> None:
    quick = [("owner/open", ""), ("owner/gated", ""), ("owner/private", ""), ("owner/none", "")]
    quick += [("owner/private", "hf_wrong"), ("no name!", ""), ("owner/forbidden", "")]
    answers = ask_hub(hub, tmp_path, quick, ["owner/busy", "owner/broken"])
    assert answers["owner/open"] == ["a"]
    for name, said in {
        "owner/gated": "'owner/gated' is gated on the Hugging Face hub. Ask for access",
        "owner/private": "for a private dataset set HF_TOKEN",
        "owner/none": "neither a folder here nor a dataset on the Hugging Face hub",
        "no name!": "neither a folder here nor a dataset on the Hugging Face hub",
        "owner/privatehf_wrong": "refused the dataset 'owner/private' (HTTP 401). Set HF_TOKEN",
        "owner/forbidden": "refused the dataset 'owner/forbidden' (HTTP 403). Set HF_TOKEN",
        "owner/busy": "(HTTP 429). Wait a while",
        "owner/broken": "(HTTP 503). Check the network",
    }.items():
        assert answers[name].startswith("SourceError: channel: ")
        assert said in answers[name]
        assert "hf_wrong" not in answers[name]


@pytest.mark.slow
def test_a_dataset_that_is_not_cached_is_told_without_network(
    hub: HubServer, tmp_path: Path, workspace: Workspace
) -> None:
    with pytest.raises(SourceError, match="'owner/open' is not in the local cache and HF_HUB_OFF"):
        list_hub(workspace, "owner/open")
    asked = [("owner/open", "")]
    alone = ask_hub(hub, tmp_path, asked, [], HF_ENDPOINT="http://127.0.0.1:9")["owner/open"]
    assert "the Hugging Face hub does not answer" in alone
    assert "Check the network" in alone
