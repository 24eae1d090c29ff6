"""One of several processes: rank 1 fails while rank 0 waits for it."""

import json
import sys
import time
from pathlib import Path

from torch.distributed import get_rank
from torch.distributed.elastic.multiprocessing.errors import record

from thumbtune.data.thumbnails import DamagedThumbnailError
from thumbtune.learning.processes import one_of_several

ERRORS = {
    "nobody expects it": ValueError("a long story\nrank 1 cannot go on"),
    "the user can mend it": DamagedThumbnailError("a.jpg is damaged"),
}


@record
def main(job: str, result: str) -> None:
    with one_of_several(result):
        asked = json.loads(Path(job).read_bytes())["name"]
        if get_rank() == 1:
            raise ERRORS[asked]
        print(asked, flush=True)
        time.sleep(600)
        Path(result).touch()


if __name__ == "__main__":
    main(*sys.argv[1:])
