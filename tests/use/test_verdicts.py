"""A fit in words, what a ranking comes to, and titles held against several thumbnails."""

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.small_channel import make_examples
from thumbtune.channel.registry import Version
from thumbtune.data.thumbnails import load_image
from thumbtune.learning.evaluation import Prediction
from thumbtune.store.workspace import Workspace
from thumbtune.use.comparing import as_csv, compare
from thumbtune.use.matching import Fit, Matcher
from thumbtune.use.verdicts import NOTHING, answer_of, in_words

OWN = 40


def fit(cosine: float, percentile: float) -> Fit:
    return Fit(title=f"{cosine}", cosine=cosine, percentile=percentile, rank=1, of=2)


@pytest.mark.parametrize(
    ("percentile", "words"),
    [
        (100, "fits better than most of your videos"),
        (75, "fits better than most of your videos"),
        (50, "fits like your typical video"),
        (24.9, "fits less well than most of your videos"),
        (4.9, "does not describe this picture"),
        (0, "does not describe this picture"),
    ],
)
def test_a_percentile_is_told_in_words(percentile: float, words: str) -> None:
    assert in_words(percentile) == words


@pytest.mark.parametrize(
    ("fits", "says", "leading"),
    [
        ([fit(0.6, 80)], "This title fits better than most of your videos.", 1),
        ([fit(0.1, 1)], "This title does not describe this picture.", 0),
        ([fit(0.1, 1), fit(0.09, 0)], "None of these titles describes this picture.", 0),
        ([fit(0.6, 80), fit(0.4, 20)], "The first title is ahead: it fits better than", 1),
        ([fit(0.4, 20), fit(0.2, 2)], "The first title is ahead, but it fits less well", 1),
        (
            [fit(0.6, 80), fit(0.57, 70), fit(0.53, 60), fit(0.4, 20)],
            "Too close to call: the first 3 titles.",
            3,
        ),
    ],
)
def test_a_ranking_is_told_in_a_sentence(fits: list[Fit], says: str, leading: int) -> None:
    answer = answer_of(fits, close=0.1)
    assert answer.says.startswith(says)
    assert answer.leading == leading


@pytest.mark.slow
def test_close_is_by_what_the_model_errs_in_half_of_its_mistakes(
    workspace: Workspace, version: Version
) -> None:
    matcher = Matcher.of_version(workspace, version)
    rows = make_examples(workspace, OWN)
    titles = list({row.title for row in rows})
    vectors = matcher.embed_titles(titles)
    gaps = []
    for row in rows:
        if row.id in version.learned_from:
            continue
        cosines = vectors @ matcher.embed_images([load_image(workspace, row)])[0]
        own = titles.index(row.title)
        gap = np.delete(cosines, own).max() - cosines[own]
        gaps += [gap] if gap > 0 else []
    assert len(gaps) >= 3
    assert matcher.close == pytest.approx(np.median(gaps), abs=1e-5)


@pytest.mark.slow
def test_after_a_cross_fit_it_is_by_the_answers_of_models_that_had_not_learned(
    workspace: Workspace, version: Version
) -> None:
    rows = make_examples(workspace, OWN)
    answers = [
        Prediction(
            split="out_of_fold",
            video_id=row.id,
            rank=1 + n % 2,
            similarity=0.5,
            top_title="x",
            top_similarity=0.5 + n % 2 * n / 100,
        )
        for n, row in enumerate(rows)
    ]
    table = workspace.write_table("predictions", answers)
    matcher = Matcher.of_version(workspace, version.model_copy(update={"answers": table}))
    assert matcher.close == pytest.approx(np.median([n / 100 for n in range(1, OWN, 2)]))


@pytest.mark.slow
def test_each_cell_of_a_grid_is_the_fit_of_its_pair(workspace: Workspace, version: Version) -> None:
    matcher = Matcher.of_version(workspace, version)
    rows = make_examples(workspace, 3)
    titles = [row.title for row in rows] + ["Something else"]
    images = [load_image(workspace, row) for row in rows]
    comparison = compare(
        matcher, matcher.embed_images(images), titles, matcher.embed_titles(titles)
    )
    assert sorted(row.title for row in comparison.rows) == sorted(titles)
    for row in comparison.rows:
        for image, cell in zip(images, row.cells, strict=True):
            [own] = matcher.score([(image, row.title)])
            assert cell.cosine == pytest.approx(own.cosine, abs=1e-5)
        best = max(cell.cosine for cell in row.cells)
        assert [cell.best_of_row for cell in row.cells] == [c.cosine == best for c in row.cells]
    columns = list(zip(*(row.cells for row in comparison.rows), strict=True))
    for column in columns:
        assert sum(cell.best_of_column for cell in column) >= 1
    top = max(cell.cosine for column in columns for cell in column)
    for cell in (cell for column in columns for cell in column):
        assert cell.ahead == (cell.cosine == top or top - cell.cosine < matcher.close)
    firsts = [max(cell.cosine for cell in row.cells) for row in comparison.rows]
    assert firsts == sorted(firsts, reverse=True)
    table = list(csv.DictReader(as_csv(comparison, ["a", "=b", "c"]).splitlines()))
    assert [line["thumbnail"] for line in table[:3]] == ["a", "'=b", "c"]
    assert {line["verdict"] for line in table} <= {in_words(p) for p in range(101)}


@given(st.floats(0, 100))
def test_only_what_does_not_belong_together_is_said_not_to(percentile: float) -> None:
    assert (in_words(percentile) == NOTHING) == (percentile < 5)
