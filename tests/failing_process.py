"""One of several processes: rank 1 fails while rank 0 waits for it."""

import sys
import time
from pathlib import Path

from torch.distributed import get_rank
from torch.distributed.elastic.multiprocessing.errors import record

from tasks.processes import join_processes
from tasks.thumbnails import DamagedThumbnailError


@record
def main(job: str, result: str) -> None:
    join_processes()
    if get_rank() == 1:
        error = DamagedThumbnailError if "damaged" in Path(job).read_text() else ValueError
        raise error("a long story\nrank 1 cannot go on")
    print(Path(job).read_text(), flush=True)
    time.sleep(600)
    Path(result).touch()


if __name__ == "__main__":
    main(*sys.argv[1:])
