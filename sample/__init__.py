"""The bundled sample: a channel of drawn thumbnails, and a small CLIP that has never seen it.

`make_channel.py` draws the channel and `pretrain_clip.py` trains the CLIP, both from the scenes of
`scenes.py`; what they wrote is checked in, so that a first run needs no network.
"""

from pathlib import Path

CHANNEL = Path(__file__).parent / "channel"
"""A folder source: manifest.json and images."""

MODEL = Path(__file__).parent / "clip"
"""A folder that `SentenceTransformer` loads."""
