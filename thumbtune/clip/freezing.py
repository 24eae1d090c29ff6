"""Freeze every parameter of the model but those named by a fragment."""

import re
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import takewhile

from pydantic import BaseModel, ConfigDict
from torch import nn

from thumbtune.errors import UserError
from thumbtune.store.workspace import Workspace


class TrainableParameters(BaseModel):
    """What is left to train after freezing, counted in single numbers (not tensors)."""

    model_config = ConfigDict(frozen=True)

    total: int
    trainable: int
    names: list[str]
    why: str = ""
    """What they are, unless they were asked for by name."""

    @property
    def share(self) -> float:
        """Trainable share, 0 to 1."""
        return self.trainable / self.total

    def is_whole(self, workspace: Workspace) -> bool:
        """Always: it points to no file."""
        return True


class NothingMatchesError(UserError, ValueError):
    """A name fragment fits no parameter of the model."""


def freeze(model: nn.Module, fragments: Sequence[str]) -> TrainableParameters:
    """Let only the parameters train whose name contains one of the fragments.

    Args:
        model: changed in place (`requires_grad`).
        fragments: such as `["projection"]`, which leaves CLIP's visual_projection.weight and
            text_projection.weight (the article, section 6).

    Raises:
        NothingMatchesError: for a fragment that fits no parameter; it lists the kinds of layers.
    """
    names = [name for name, _ in model.named_parameters()]
    for fragment in fragments:
        if not any(fragment in name for name in names):
            raise NothingMatchesError(nothing_matches(fragment, names))
    named = [
        parameter
        for name, parameter in model.named_parameters()
        if any(fragment in name for fragment in fragments)
    ]
    return train_only(model, named)


def train_only(
    model: nn.Module, parameters: Sequence[nn.Parameter], why: str = ""
) -> TrainableParameters:
    """Let some parameters of a model train and freeze all others, in place."""
    chosen = {id(parameter) for parameter in parameters}
    for parameter in model.parameters():
        parameter.requires_grad = id(parameter) in chosen
    return TrainableParameters(
        total=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        names=[name for name, p in model.named_parameters() if p.requires_grad],
        why=why,
    )


def nothing_matches(fragment: str, names: Sequence[str]) -> str:
    """What is said of a fragment that no parameter's name contains."""
    near = nearest(fragment, names)
    meant = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return (
        f"training.trainable: no parameter's name contains {fragment!r}.{meant} "
        f"The layers of this model are: {'; '.join(kinds_of_layers(names))}."
    )


def nearest(fragment: str, names: Sequence[str]) -> list[str]:
    """Up to two parts of the names, of as many words between dots, that are spelled alike."""
    words = fragment.strip(".").count(".") + 1
    parts = {
        ".".join(path[start : start + words])
        for path in (name.split(".") for name in names)
        for start in range(len(path) - words + 1)
    }
    if words == 1:
        parts |= {word for part in parts for word in part.split("_")}
    by_lower_case = {part.lower(): part for part in sorted(parts)}
    found = get_close_matches(fragment.strip(".").lower(), by_lower_case, n=2)
    return [by_lower_case[part] for part in found]


def kinds_of_layers(names: Sequence[str]) -> list[str]:
    """The layers that own parameters, each kind once: numbers become `*`, with their count.

    `blocks.*.{fc1, fc2} (12)` stands for two layers in each of twelve blocks. What all names begin
    with is left out.
    """
    common = _common_beginning(names)
    counts = Counter[str]()
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(re.sub(r"\.(weight|bias)$", "", name[common:]) for name in names):
        kind = re.sub(r"\.\d+(?=\.|$)", ".*", name)
        counts[kind] += 1
        repeated, star, rest = kind.rpartition(".*.")
        if not star:
            repeated, star, rest = rest.rpartition(".")
        group = groups.setdefault(repeated + star, [])
        if rest not in group:
            group.append(rest)
    return [_told(group, rests, counts[group + rests[0]]) for group, rests in groups.items()]


def _common_beginning(names: Sequence[str]) -> int:
    """Length of the words up to a dot that all names begin with."""
    first, last = min(names), max(names)  # in between they cannot differ earlier
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return "".join(letter for letter, _ in same).rfind(".") + 1


def _told(group: str, rests: Sequence[str], count: int) -> str:
    listed = ", ".join(rests)
    if group and len(rests) > 1:
        listed = f"{{{listed}}}"
    return f"{group}{listed}" + (f" ({count})" if count > 1 else "")
