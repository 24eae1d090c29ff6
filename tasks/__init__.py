"""The steps as Prefect tasks, one thin file each, and what Prefect needs beside them.

In the order of the story: `resolve_model`, `count_trainable`, `fetch_videos` (`call_youtube`),
`look_ahead`, `fetch_thumbnails`, `find_near_duplicates`, `split_videos`, `mine_negatives`,
`collect_examples`, `check_language`, `choose_precision`, `encode_features`, `mine_by_clip`,
`score_in_field`, `plan_run`, `train_model`, `evaluate`, `write_report`, `write_cards`, `register`,
`promote`, `index_thumbnails`, `track_version`, `publish`; of a sweep `search_hyperparameters`,
`compare_recipes` and `write_sweep`; of the watch `look_for_news`.

Beside them: `caching` decides what need not run again, `retries` what is tried again, `artifacts`
`progress` and `notifications` tell of a run, `logs` shapes its log, `secret_blocks` holds its keys,
`runs` names and tags it, `cancelling` ends it.
"""

from thumbtune.channel.secrets import OTHER_PLACES
from thumbtune.progress import LISTENERS
from thumbtune.tasks.logs import log_in_one_line, log_in_runs
from thumbtune.tasks.progress import post_progress
from thumbtune.tasks.secret_blocks import read_block

# In the workers of Dask and Ray too, which import nothing but steps.
log_in_one_line()
log_in_runs()
OTHER_PLACES.append(read_block)
LISTENERS.append(post_progress)
