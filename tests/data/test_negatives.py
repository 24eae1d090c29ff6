"""Which title stands as the wrong one beside each thumbnail."""

from random import Random

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from thumbtune.data.negatives import (
    Embeddings,
    NoNegativeError,
    Pair,
    Rows,
    hardest_below,
    least_similar,
    pair_titles,
    random_other,
)
from thumbtune.data.splits import SplitVideo
from thumbtune.parameters import NegativesParameters


def unit_vectors(rows: int, seed: int = 0, dimensions: int = 8) -> Embeddings:
    vectors = np.random.default_rng(seed).standard_normal((rows, dimensions)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def articles_negatives(vectors: Embeddings) -> list[int]:
    """The article's loop as written, on the whole matrix at once."""
    order = np.argsort(vectors @ vectors.T, axis=1)
    taken: list[int] = []
    for row in range(len(order)):
        place = 0
        while int(order[row][place]) in taken:
            place += 1
        taken.append(int(order[row][place]))
    return taken


@pytest.mark.slow
@pytest.mark.parametrize("rows", [2, 3, 76, 1500])
def test_least_similar_is_the_articles_permutation_where_that_has_no_title_as_its_own_negative(
    rows: int,
) -> None:
    compared = 0
    for seed in range(20 if rows < 100 else 3):
        vectors = unit_vectors(rows, seed)
        article = articles_negatives(vectors)
        if all(row != other for row, other in enumerate(article)):
            assert least_similar(vectors, np.arange(rows)).tolist() == article
            compared += 1
    assert compared


def test_a_row_that_the_article_leaves_with_itself_swaps_with_the_row_that_loses_least() -> None:
    left = [seed for seed in range(50) if articles_negatives(unit_vectors(5, seed))[-1] == 4]
    assert left
    for seed in left:
        vectors = unit_vectors(5, seed)
        article = articles_negatives(vectors)
        similarities = vectors @ vectors.T
        totals = []
        for other in range(4):
            swapped = article.copy()
            swapped[4], swapped[other] = swapped[other], swapped[4]
            totals.append(similarities[np.arange(5), swapped].sum())
        ours = least_similar(vectors, np.arange(5))
        assert similarities[np.arange(5), ours].sum() == pytest.approx(min(totals), abs=1e-5)


def hardest(vectors: Embeddings, texts: Rows, ceiling: float) -> Rows:
    return hardest_below(vectors, vectors, texts, np.full(len(texts), ceiling))


texts_of_two_or_more = (
    arrays(np.intp, st.integers(2, 40), elements=st.integers(0, 9))
    .filter(lambda texts: len(set(texts.tolist())) > 1)
    .map(lambda texts: np.unique(texts, return_inverse=True)[1])
)


@given(texts=texts_of_two_or_more, seed=st.integers(0, 5))
def test_no_title_is_ever_its_own_negative_whether_by_row_or_by_equal_text(
    texts: Rows, seed: int
) -> None:
    vectors = unit_vectors(int(texts.max()) + 1, seed)[texts]
    for negatives in (
        least_similar(vectors, texts),
        hardest(vectors, texts, 0.5),
        random_other(texts, seed),
    ):
        assert (texts[negatives] != texts).all()


@given(texts=texts_of_two_or_more, seed=st.integers(0, 5))
def test_least_similar_uses_each_title_once_unless_one_text_has_more_than_half_of_the_rows(
    texts: Rows, seed: int
) -> None:
    vectors = unit_vectors(int(texts.max()) + 1, seed)[texts]
    negatives = least_similar(vectors, texts)
    if np.bincount(texts).max() <= len(texts) / 2:
        assert sorted(negatives) == list(range(len(texts)))


def test_least_similar_is_the_same_whether_mined_in_one_block_or_in_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors, texts = unit_vectors(300), np.arange(300) // 2
    whole = least_similar(vectors, texts)
    monkeypatch.setattr("thumbtune.data.negatives.BLOCK", 7)
    assert least_similar(vectors, texts).tolist() == whole.tolist()


def test_hard_takes_the_most_similar_below_the_ceiling() -> None:
    angles = np.radians([0, 10, 40, 120])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert hardest(vectors, np.arange(4), 0.95)[0] == 2
    assert hardest(vectors, np.arange(4), 0.99)[0] == 1


def test_hard_falls_back_to_the_least_similar_where_all_reach_the_ceiling() -> None:
    angles = np.radians([0, 1, 2, 3])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert hardest(vectors, np.arange(4), 0.5)[0] == 3


def test_clips_own_is_the_title_that_it_takes_most_for_the_thumbnails_below_the_margin() -> None:
    rows = videos("r" * 5)
    similar = [0.8, 0.9, 0.79, 0.7, 0.1]  # of the first thumbnail with each title; 0.8 is its own
    titles = np.zeros((5, 6), np.float32)
    titles[:, 0], titles[np.arange(5), np.arange(1, 6)] = similar, np.sqrt(1 - np.square(similar))
    images = np.concatenate([np.eye(6)[:1], titles[1:]]).astype(np.float32)

    def first(margin: float) -> str | None:
        parameters = NegativesParameters(method="clip", margin=margin)
        return pair_titles(rows, parameters, 42, lambda _: titles, images)[0].title_neg

    assert first(0) == "Title 2"
    assert first(0.05) == "Title 3"
    assert first(0.5) == "Title 4"
    assert first(1) == "Title 4", "where none is so far below, the least similar"


def test_random_is_seeded_and_reaches_every_other_text() -> None:
    texts = np.array([0, 0, 1, 2])
    assert random_other(texts, seed=3).tolist() == random_other(texts, seed=3).tolist()
    assert {int(random_other(texts, seed)[0]) for seed in range(50)} == {2, 3}


METHODS = ("least_similar", "hard", "clip", "random")


def videos(splits: str, titles: list[str] | None = None) -> list[SplitVideo]:
    names = {"r": "train", "v": "valid", "t": "test"}
    return [
        SplitVideo(
            id=str(n), title=titles[n] if titles else f"Title {n}", thumbnails={}, split=names[s]
        )
        for n, s in enumerate(splits)
    ]


def embed(titles: list[str]) -> Embeddings:
    return unit_vectors(len(titles))


def paired(rows: list[SplitVideo], method: str) -> list[Pair]:
    parameters = NegativesParameters(method=method)  # type: ignore[arg-type]
    return pair_titles(rows, parameters, 42, embed, unit_vectors(len(rows), 1))


@pytest.mark.parametrize("method", METHODS)
def test_within_split_no_title_crosses_from_one_split_to_another(method: str) -> None:
    rows = videos("rrrvvttrrvtrvt")
    pairs = paired(rows, method)
    split_of = {row.title: row.split for row in rows}
    assert all(split_of[pair.title_neg or ""] == pair.split for pair in pairs)


@given(
    names=st.lists(st.sampled_from("abcdefgh"), min_size=6, max_size=40),
    method=st.sampled_from(METHODS),
    data=st.data(),
)
def test_a_negative_is_another_title_of_its_split_and_each_serves_once_where_it_can(
    names: list[str], method: str, data: st.DataObject
) -> None:
    drawn = data.draw(st.text("rvt", min_size=len(names), max_size=len(names)))
    rows = videos(drawn, names)
    of_split = {s: [r.title for r in rows if r.split == s] for s in ("train", "valid", "test")}
    assume(all(len(set(own)) != 1 for own in of_split.values()))
    pairs = paired(rows, method)
    assert [pair.id for pair in pairs] == [row.id for row in rows]
    for split, own in of_split.items():
        negatives = [str(pair.title_neg) for pair in pairs if pair.split == split]
        assert set(negatives) <= set(own)
        most = max(map(own.count, own), default=0)
        if method == "least_similar" and most <= len(own) / 2:
            assert sorted(negatives) == sorted(own)
    assert all(pair.title_neg != pair.title for pair in pairs)


@pytest.mark.parametrize("method", METHODS)
def test_a_title_is_never_its_own_negative_in_another_spelling(method: str) -> None:
    rows = videos("r" * 4, ["A robot", "a ROBOT", "A\u200b robot\ufe0f", "B"])
    pairs = paired(rows, method)
    assert [pair.title_neg for pair in pairs[:3]] == ["B"] * 3
    assert pairs[3].title_neg != "B"


@given(texts=texts_of_two_or_more, seed=st.integers(0, 5), order=st.randoms())
def test_the_hardest_negative_does_not_depend_on_the_order_of_the_videos(
    texts: Rows, seed: int, order: Random
) -> None:
    vectors = unit_vectors(int(texts.max()) + 1, seed)[texts]
    moved = np.array(order.sample(range(len(texts)), len(texts)))
    before = texts[hardest(vectors, texts, 0.5)]
    after = texts[moved][hardest(vectors[moved], texts[moved], 0.5)]
    assert after.tolist() == before[moved].tolist()


def test_before_split_is_the_articles_mining_over_all_videos_in_their_order() -> None:
    rows = videos("rvt" * 10)
    pairs = pair_titles(rows, NegativesParameters(scope="before_split"), 42, embed)
    expected = least_similar(embed([row.title for row in rows]), np.arange(30))
    assert [pair.title_neg for pair in pairs] == [rows[other].title for other in expected]
    assert [pair.split for pair in pairs] == [row.split for row in rows]


def test_none_leaves_the_negative_out() -> None:
    pairs = pair_titles(videos("rvt"), NegativesParameters(method="none"), 42, embed)
    assert [pair.title_neg for pair in pairs] == [None] * 3


def test_given_keeps_the_datasets_own_and_says_when_there_are_none() -> None:
    parameters = NegativesParameters(method="given")
    rows = [row.model_copy(update={"title_neg": f"not {row.title}"}) for row in videos("rvt")]
    assert pair_titles(rows, parameters, 42, embed)[1].title_neg == "not Title 1"
    with pytest.raises(NoNegativeError, match=r"negatives\.method is `given`, but 3 of 3"):
        pair_titles(videos("rvt"), parameters, 42, embed)


def test_a_split_of_one_text_alone_is_an_error_with_the_mend() -> None:
    rows = videos("rrvv", ["a", "b", "c", "c"])
    with pytest.raises(NoNegativeError, match=r"the same \('c'\).*negatives\.method to none"):
        pair_titles(rows, NegativesParameters(), 42, embed)
