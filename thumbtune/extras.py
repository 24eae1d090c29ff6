"""What a plain installation does without: extras of this package."""

from importlib.util import find_spec

from thumbtune.errors import UserError

EXTRAS = {"web": "gradio", "sweep": "optuna"}
"""Name → the package that it is for."""


class MissingExtraError(UserError):
    """What was asked for wants an extra that is not installed."""


def check_extra(name: str, what: str) -> None:
    """Raise MissingExtraError unless an extra is installed.

    Args:
        what: wants it, in words.
    """
    if find_spec(EXTRAS[name]) is None:
        raise MissingExtraError(
            f"{what} needs {EXTRAS[name]}, which is not installed. Run `pip install "
            f"'thumbtune[{name}]'`."
        )
