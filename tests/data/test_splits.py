"""How videos are divided into train, valid and test."""

from collections import Counter
from datetime import date, timedelta
from hashlib import sha256
from random import Random

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thumbtune.channel.listing import Video
from thumbtune.data.splits import (
    NO_LOOKS,
    Assigned,
    Split,
    SplitsNotGivenError,
    SplitTooSmallError,
    SplitVideo,
    UndatedVideosError,
    divide_videos,
    fold_numbers,
    hash_splits,
    leakage,
    linking,
    seen_in_train,
    shuffled_splits,
    time_splits,
)
from thumbtune.parameters import SplitParameters
from thumbtune.text.titles import same_title


def video(number: int, title: str | None = None, published: str | None = None) -> Video:
    day = date(2020, 1, 1) + timedelta(days=number)
    return Video(
        id=f"id-{number}",
        title=title or f"Title {number}",
        thumbnails={},
        published_at=published or f"{day}T00:00:00Z",
    )


def test_shuffle_gives_the_articles_53_11_12_and_the_same_rows_as_pandas() -> None:
    splits = shuffled_splits(76, train=0.7, valid=0.15, seed=42)
    frame = pd.DataFrame({"row": range(76)}).sample(frac=1, random_state=42).reset_index(drop=True)
    for split, expected in (
        ("train", frame["row"][:53]),
        ("valid", frame["row"][53:64]),
        ("test", frame["row"][64:]),
    ):
        assert [row for row, name in enumerate(splits) if name == split] == sorted(expected)
    assert [splits.count(name) for name in ("train", "valid", "test")] == [53, 11, 12]


titles = st.sampled_from(["a", "b", "c", "d", "e", "f", "g", "h"])


@given(old=st.lists(titles, min_size=1), new=st.lists(titles))
def test_hash_keeps_a_videos_split_as_the_channel_grows(old: list[str], new: list[str]) -> None:
    channel = [video(number, title) for number, title in enumerate(old + new)]
    before = hash_splits(channel[: len(old)], 0.7, 0.15)
    after = hash_splits(channel[::-1], 0.7, 0.15)[::-1]  # the newest come first, as on YouTube
    assert after[: len(old)] == before


@given(names=st.lists(titles, min_size=2))
def test_hash_keeps_equal_titles_together(names: list[str]) -> None:
    splits = hash_splits([video(n, title) for n, title in enumerate(names)], 0.5, 0.25)
    assert len({*zip(names, splits, strict=True)}) == len(set(names))


@given(names=st.lists(titles, min_size=4), order=st.randoms(use_true_random=False))
def test_time_makes_the_newest_titles_test_and_keeps_equal_ones_together(
    names: list[str], order: Random
) -> None:
    channel = [
        video(n, title, published=f"2024-01-01T00:{n // 60:02d}:{n % 60:02d}Z")
        for n, title in enumerate(names)
    ]
    oldest = {name: names.index(name) for name in names}
    order.shuffle(channel)
    splits = time_splits(channel, 0.5, 0.25)
    found = dict(zip((each.title for each in channel), splits, strict=True))
    assert len({*zip((each.title for each in channel), splits, strict=True)}) == len(found)
    by_age = [found[name] for name in sorted(found, key=oldest.__getitem__)]
    assert by_age == sorted(by_age, key=("train", "valid", "test").index)
    assert by_age[0] == "train"


def test_time_gives_the_shares_that_are_asked_for() -> None:
    channel = [video(n, published=f"2024-01-01T00:{n // 60:02d}:{n % 60:02d}Z") for n in range(100)]
    assert Counter(time_splits(channel, 0.7, 0.15)) == {"train": 70, "valid": 15, "test": 15}


def test_time_needs_dates() -> None:
    channel = [video(n) for n in range(9)]
    channel[3] = channel[3].model_copy(update={"published_at": None})
    with pytest.raises(UndatedVideosError, match=r"1 of 9 videos have no date\. Choose split\."):
        time_splits(channel, 0.7, 0.15)


spelled = st.sampled_from(["A robot", "a ROBOT", "A\u200b robot ", "Ａ robot", "é", "E\u0301", "b"])


@given(names=st.lists(spelled, min_size=2), dated=st.booleans())
def test_hash_keeps_titles_together_that_differ_in_case_or_invisibly(
    names: list[str], dated: bool
) -> None:
    channel = [video(n, title) for n, title in enumerate(names)]
    if not dated:
        channel = [each.model_copy(update={"published_at": None}) for each in channel]
    splits = hash_splits(channel, 0.5, 0.25)
    keys = [same_title(name) for name in names]
    assert len({*zip(keys, splits, strict=True)}) == len(set(keys))


@given(names=st.lists(titles, min_size=2), dated=st.booleans())
def test_hash_places_videos_whose_titles_are_equal_to_the_letter_as_ever(
    names: list[str], dated: bool
) -> None:
    channel = [video(n, title) for n, title in enumerate(names)]
    channel = [v if dated else v.model_copy(update={"published_at": None}) for v in channel]
    splits = hash_splits(channel, 0.5, 0.25)
    for place, name in enumerate(names):
        key = f"id:id-{names.index(name)}" if dated else f"title:{name}"
        at = int.from_bytes(sha256(key.encode()).digest()[:6], "big") / 2**48
        assert splits[place] == ("train" if at < 0.5 else "valid" if at < 0.75 else "test")


@given(names=st.lists(titles), dated=st.lists(st.booleans(), min_size=30), order=st.randoms())
def test_hash_is_the_same_in_whatever_order_the_videos_are_listed(
    names: list[str], dated: list[bool], order: Random
) -> None:
    channel = [video(number, title) for number, title in enumerate(names)]
    channel = [
        each if is_dated else each.model_copy(update={"published_at": None})
        for each, is_dated in zip(channel, dated, strict=False)
    ]
    shuffled = order.sample(channel, len(channel))
    before, after = (
        dict(zip([each.id for each in rows], hash_splits(rows, 0.5, 0.25), strict=True))
        for rows in (channel, shuffled)
    )
    assert after == before


shares = st.tuples(st.floats(0.01, 0.98), st.floats(0.01, 0.98)).filter(lambda two: sum(two) < 0.99)


@given(rows=st.integers(0, 300), two=shares, seed=st.integers(0, 2**32 - 1))
def test_shuffle_puts_every_video_into_one_split_of_the_asked_size(
    rows: int, two: tuple[float, float], seed: int
) -> None:
    splits = shuffled_splits(rows, *two, seed)
    train, valid = (int(share * rows) for share in two)
    sizes = [splits.count(name) for name in ("train", "valid", "test")]
    assert sizes == [train, valid, rows - train - valid]


def test_hash_moves_no_other_video_when_a_title_is_edited() -> None:
    channel = [video(n) for n in range(200)]
    edited = [*channel[:7], video(7, "A new title"), *channel[8:]]
    assert hash_splits(edited, 0.7, 0.15) == hash_splits(channel, 0.7, 0.15)


def test_hash_comes_near_the_asked_shares() -> None:
    splits = hash_splits([video(n) for n in range(5000)], 0.7, 0.15)
    assert splits.count("train") / 5000 == pytest.approx(0.7, abs=0.02)
    assert splits.count("valid") / 5000 == pytest.approx(0.15, abs=0.02)


def test_hash_gives_the_same_splits_on_every_machine() -> None:
    splits = hash_splits([video(n) for n in range(24)], 0.5, 0.25)
    initials = {"train": "r", "valid": "v", "test": "t"}
    assert "".join(initials[split] for split in splits) == "vvrvrrrvvrrvrrrrrtvrtrvr"


def test_a_video_without_a_date_is_placed_by_its_title() -> None:
    undated = Video(id="x", title="One", thumbnails={})
    again = Video(id="a", title="One", thumbnails={})
    assert hash_splits([undated], 0.5, 0.25) == hash_splits([again, undated], 0.5, 0.25)[1:]


def test_given_splits_are_taken_as_they_came() -> None:
    names = ["test", "train", "valid", "train", "test", "valid"]
    rows = [video(n).model_copy(update={"split": name}) for n, name in enumerate(names)]
    parameters = SplitParameters(method="given", min_rows=2)
    assert [row.split for row in divide_videos(rows, parameters, seed=0)] == names


def test_given_splits_that_are_missing_are_an_error_with_the_mend() -> None:
    with pytest.raises(ValueError, match=r"split\.method is `given`, but 3 of 3 videos"):
        divide_videos([video(n) for n in range(3)], SplitParameters(method="given"), seed=0)


def test_a_given_split_without_a_video_is_an_error_that_counts_the_splits() -> None:
    rows = [video(n).model_copy(update={"split": name}) for n, name in enumerate(["train"] * 9)]
    with pytest.raises(
        SplitsNotGivenError,
        match=r"none came in valid, none came in test; the dataset has: train 9\. Choose",
    ):
        divide_videos(rows, SplitParameters(method="given"), seed=0)


def test_titles_on_both_sides_of_a_split_are_counted_and_told() -> None:
    names = ["A", "B", "a", "C", "\u200bb", "D"]
    splits = ["train", "train", "valid", "valid", "test", "test"]
    rows = [
        SplitVideo(**{**dict(video(n, name)), "split": split})
        for n, (name, split) in enumerate(zip(names, splits, strict=True))
    ]
    assert seen_in_train(rows) == {"valid": 1, "test": 1}
    told = leakage(rows, "shuffle")
    assert told
    assert told.startswith("1 videos of valid and 1 videos of test have titles that train has")
    assert told.endswith(
        "hash puts a new video beside those of its title or of nearly the same thumbnail."
    )
    by_hash = leakage(rows, "hash")
    assert by_hash
    assert "split.method is hash; a video keeps its split when its title" in by_hash
    assert by_hash.endswith("split all anew, what belongs together in one.")
    assert leakage(rows[::2][:1] + rows[3:4], "shuffle") is None


def test_a_split_that_is_too_small_is_an_error_that_gives_the_sizes() -> None:
    parameters = SplitParameters(method="shuffle")
    with pytest.raises(SplitTooSmallError, match=r"valid split has 1 of 10 .*train 7, valid 1"):
        divide_videos([video(n) for n in range(10)], parameters, seed=42)


def test_no_videos_at_all_is_an_error() -> None:
    with pytest.raises(SplitTooSmallError, match="0 of 0 videos"):
        divide_videos([], SplitParameters(), seed=42)


def test_a_title_that_is_edited_to_another_videos_moves_neither_and_is_told() -> None:
    splits = hash_splits([video(n) for n in range(24)], 0.5, 0.25)
    train, test = splits.index("train"), splits.index("test")
    assigned = [
        Assigned(id=f"id-{n}", split=split, title=f"Title {n}") for n, split in enumerate(splits)
    ]
    edited = [video(n, f"Title {train}" if n == test else None) for n in range(24)]
    parameters = SplitParameters(train=0.5, valid=0.25, min_rows=2)
    rows = divide_videos(edited, parameters, 0, assigned)
    assert [row.split for row in rows] == splits
    assert "a video keeps its split" in str(leakage(rows, "hash"))


Story = list[tuple[str, int, str]]
changes = st.lists(
    st.tuples(st.sampled_from(["add", "delete", "retitle"]), st.integers(0, 30), titles),
    max_size=40,
)


@given(story=changes)
def test_a_video_keeps_its_split_whatever_becomes_of_it_and_of_others(story: Story) -> None:
    channel: dict[int, Video] = {}
    assigned: dict[str, Assigned] = {}
    for change, number, title in story:
        if change == "delete":
            channel.pop(number, None)
        elif change == "add" or number in channel:
            channel[number] = video(number, title)
        videos = list(channel.values())
        splits = hash_splits(videos, 0.5, 0.25, list(assigned.values()))
        for each, split in zip(videos, splits, strict=True):
            if each.id in assigned:
                assert split == assigned[each.id].split
            assigned[each.id] = Assigned(id=each.id, split=split, title=each.title)


@given(names=st.lists(titles, min_size=1), more=st.lists(titles, min_size=1), gone=st.booleans())
def test_a_new_video_joins_those_of_its_title_also_when_they_are_gone(
    names: list[str], more: list[str], gone: bool
) -> None:
    old = [video(n, title) for n, title in enumerate(names, 100)]
    before = hash_splits(old, 0.5, 0.25)
    assigned = [
        Assigned(id=each.id, split=split, title=each.title.upper())
        for each, split in zip(old, before, strict=True)
    ]
    new = [video(n, title) for n, title in enumerate(more)]  # older ones, too
    splits = hash_splits(new if gone else new + old, 0.5, 0.25, assigned)
    known = {each.title: split for each, split in zip(old, before, strict=True)}
    for each, split in zip(new, splits, strict=False):
        assert split == known.get(each.title, split)
    assert not any(
        seen_in_train(
            [
                SplitVideo(**e.model_dump(exclude={"split"}), split=s)
                for e, s in zip(new, splits, strict=False)
            ]
        ).values()
    )


@given(names=st.lists(titles, min_size=1), gone=st.sampled_from(("train", "valid", "test")))
def test_a_video_that_is_uploaded_again_under_another_title_joins_what_it_was(
    names: list[str], gone: Split
) -> None:
    assigned = [Assigned(id="gone", split=gone, title="It was so", picture="thumbnails/a.jpg")]
    videos = [video(n, title) for n, title in enumerate(names)]
    again = video(99, "It is so now")
    pictures = {again.id: "thumbnails/a.jpg", videos[0].id: "thumbnails/b.jpg"}
    splits = hash_splits([*videos, again], 0.5, 0.25, assigned, NO_LOOKS, pictures)
    assert splits[-1] == gone
    assert splits[:-1] == hash_splits(videos, 0.5, 0.25)


looks = st.dictionaries(st.integers(0, 30).map(lambda n: f"id-{n}"), st.sampled_from("abcde"))


def linked_by_a_new_one() -> tuple[list[Video], list[Assigned], dict[str, str]]:
    """Old videos, and a new one with the title of one of train and the thumbnail of one of test."""
    old = [video(n) for n in range(24)]
    splits = hash_splits(old, 0.5, 0.25)
    assigned = [
        Assigned(id=each.id, split=split, title=each.title)
        for each, split in zip(old, splits, strict=True)
    ]
    new = video(99, old[splits.index("train")].title)
    seen = {each.id: f"look of {each.id}" for each in old}
    return [*old, new], assigned, seen | {new.id: seen[old[splits.index("test")].id]}


def test_a_holdout_leaves_out_a_new_video_that_links_train_with_test() -> None:
    videos, assigned, seen = linked_by_a_new_one()
    split = SplitParameters(train=0.5, valid=0.25, min_rows=2)
    assert linking(videos, assigned, seen) == {"id-99"}
    rows = divide_videos(videos, split, 0, assigned, seen, leaves_out=True)
    assert {row.id: row.split for row in rows} == {each.id: each.split for each in assigned}
    assert leakage(rows, "hash") is None
    whole = divide_videos(videos, split, 0, assigned, seen)
    assert "a later one links it" in str(leakage(whole, "hash"))


def test_a_new_video_beside_one_that_is_left_out_joins_those_it_belongs_with_itself() -> None:
    videos, assigned, seen = linked_by_a_new_one()
    of_test = next(each for each in assigned if each.split == "test")
    another = video(100, "Another title")
    seen = seen | {another.id: seen[of_test.id]}
    assert linking([*videos, another], assigned, seen) == {"id-99"}
    assert hash_splits([*videos, another], 0.5, 0.25, assigned, seen)[-1] == "test"


def test_new_videos_that_link_two_splits_together_are_left_out_both() -> None:
    videos, assigned, seen = linked_by_a_new_one()
    one = videos[-1].model_copy(update={"title": "A new title"})  # with the thumbnail of test
    other = video(100, "a NEW title")
    of_train = next(each for each in assigned if each.split == "train")
    seen = seen | {other.id: seen[of_train.id]}
    assert linking([*videos[:-1], one], assigned, seen) == set()
    assert linking([*videos[:-1], one, other], assigned, seen) == {one.id, other.id}


@given(names=st.lists(titles, min_size=1, max_size=30), known=st.integers(0, 29), seen=looks)
def test_what_a_holdout_keeps_of_new_videos_leaks_nothing_that_did_not_leak_before(
    names: list[str], known: int, seen: dict[str, str]
) -> None:
    videos = [video(n, title) for n, title in enumerate(names)]
    before = hash_splits(videos[:known], 0.5, 0.25, (), seen)
    assigned = [
        Assigned(id=each.id, split=split, title=each.title)
        for each, split in zip(videos, before, strict=False)
    ]
    split = SplitParameters(train=0.5, valid=0.25).model_copy(update={"min_rows": 0})
    rows = divide_videos(videos, split, 0, assigned, seen, leaves_out=True)
    assert not any(seen_in_train(rows).values())


@given(names=st.lists(titles, min_size=1, max_size=30), seen=looks)
def test_videos_of_nearly_the_same_thumbnail_or_title_are_in_one_split(
    names: list[str], seen: dict[str, str]
) -> None:
    videos = [video(n, title) for n, title in enumerate(names)]
    splits = hash_splits(videos, 0.5, 0.25, (), seen)
    for one, split in zip(videos, splits, strict=True):
        for other, its in zip(videos, splits, strict=True):
            same = seen.get(one.id, one.id) == seen.get(other.id, other.id)
            assert split == its or not (same or same_title(one.title) == same_title(other.title))


@given(names=st.lists(titles, min_size=2, max_size=30), seen=looks, known=st.integers(1, 29))
def test_a_new_video_joins_those_of_its_thumbnail_and_moves_none(
    names: list[str], seen: dict[str, str], known: int
) -> None:
    videos = [video(n, title) for n, title in enumerate(names)]
    before = hash_splits(videos[:known], 0.5, 0.25)  # by an earlier thumbtune, which saw none
    assigned = [
        Assigned(id=each.id, split=split, title=each.title)
        for each, split in zip(videos, before, strict=False)
    ]
    splits = dict(
        zip(
            [each.id for each in videos],
            hash_splits(videos, 0.5, 0.25, assigned, seen),
            strict=True,
        )
    )
    assert [splits[each.id] for each in assigned] == before
    for each in videos[known:]:
        of_its_look = {
            splits[own.id] for own in assigned if seen.get(own.id, "") == seen.get(each.id)
        }
        alone = names.count(each.title) == 1 and len(of_its_look) == 1
        assert not alone or splits[each.id] in of_its_look


def test_a_cover_that_many_videos_have_trains() -> None:
    videos = [video(n) for n in range(60)]
    seen = {f"id-{n}": "cover" for n in range(0, 60, 2)}
    splits = hash_splits(videos, 0.5, 0.25, (), seen)
    assert set(splits[::2]) == {"train"}
    assert len(set(splits[1::2])) == 3


def test_by_time_nearly_the_same_thumbnails_are_as_old_as_the_oldest() -> None:
    videos = [video(n) for n in range(20)]
    splits = time_splits(videos, 0.5, 0.25, {"id-0": "cover", "id-19": "cover"})
    assert splits[0] == splits[19] == "train"


def test_thumbnails_on_both_sides_are_told() -> None:
    rows = divide_videos(
        [video(n) for n in range(40)],
        SplitParameters(method="shuffle", min_rows=2),
        seed=1,
        looks={f"id-{n}": "cover" for n in range(20)},
    )
    assert "nearly the same thumbnails" in str(leakage(rows, "shuffle"))


def in_train(numbers: list[int]) -> list[SplitVideo]:
    """Some of them of equal title."""
    videos = [video(number, f"Title {number - number % 4 // 3}") for number in numbers]
    return [SplitVideo(**each.model_dump(exclude={"split"}), split="train") for each in videos]


@given(order=st.permutations(range(30)), seed=st.integers(0, 5), folds=st.integers(2, 7))
def test_the_order_of_the_videos_changes_no_fold(order: list[int], seed: int, folds: int) -> None:
    rows = in_train(list(range(30)))
    there = fold_numbers(rows, seed, folds)
    again = fold_numbers([rows[place] for place in order], seed, folds)
    assert again.tolist() == there[order].tolist()


@given(videos=st.integers(7, 60), seed=st.integers(0, 5), folds=st.integers(2, 7))
def test_folds_have_as_many_groups_as_each_other_or_one_more(
    videos: int, seed: int, folds: int
) -> None:
    rows = [
        row.model_copy(update={"title": f"Title {row.id}"}) for row in in_train(list(range(videos)))
    ]
    sizes = Counter(fold_numbers(rows, seed, folds).tolist())
    assert sorted(sizes) == list(range(folds))
    assert max(sizes.values()) - min(sizes.values()) <= 1


@pytest.mark.parametrize("new", [1, 5])
def test_new_videos_move_few_of_the_others_to_another_fold(new: int) -> None:
    moved = 0
    for seed in range(10):
        grown = in_train(list(range(90 + new)))
        before, after = fold_numbers(grown[:90], seed), fold_numbers(grown, seed)[:90]
        moved += int((before != after).sum())
    assert moved < 0.05 * 10 * 90


def test_fewer_groups_than_folds_are_refused() -> None:
    rows = [row.model_copy(update={"title": "One for all"}) for row in in_train(list(range(9)))]
    with pytest.raises(SplitTooSmallError, match="too few for 5 folds"):
        fold_numbers(rows, 0)
