"""Imports of thousands of modules, without the garbage collector that looks at them all meanwhile.

PyTorch, transformers and sentence-transformers are 4,300 modules; a quarter of the seconds that
they take is spent on looking for garbage in them, of which there is none.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


def begin_imports() -> None:
    """Switch the garbage collector off, until `end_imports`."""
    gc.disable()


def end_imports() -> None:
    """Switch it on; what is there by now, it leaves alone."""
    gc.freeze()
    gc.enable()


@contextmanager
def many_imports() -> Iterator[None]:
    """Import within; no data are made here."""
    begin_imports()
    try:
        yield
    finally:
        end_imports()
