"""Several studies in one database: which of them is meant, and what tells them apart.

Numbers of different studies are never mixed. Where a command needs one study and finds several, it
refuses and lists them with their ids; ``--study ID`` then says which.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath

from mpt.config import UpstreamConfig
from mpt.errors import DataError, UsageError
from mpt.keys import digest, flat
from mpt.store.records import Point, StudyRecord
from mpt.study.replaced import REPLACED, replaced_text

DIGITS = 8
"""Digits of a key that people read and type."""
NAMED = 3
"""Tasks that a text names; of more it says how many."""


def chosen(
    studies: Sequence[StudyRecord], wanted: str | None, name: str = "--study"
) -> list[StudyRecord]:
    """Return the studies that ``--study`` means.

    Args:
        studies: what there is.
        wanted: the first eight digits or more of a study's key, or of its protocol (then all
            studies of that protocol are meant); None: all studies.
        name: what the caller calls it, for the message.

    Raises:
        UsageError: there is none; those that there are are listed.
    """
    if wanted is None:
        return list(studies)
    meant = [one for one in studies if one.key.startswith(wanted)]
    meant = meant or [one for one in studies if one.protocol.startswith(wanted)]
    if len(wanted) < DIGITS or not meant:
        raise UsageError(
            f"{name} is {wanted!r}, but must be the first {DIGITS} digits or more of a study or "
            f"protocol; there are {listed(studies) or 'none'}"
        )
    return meant


def only_protocol(studies: Sequence[StudyRecord], where: str, what: str) -> None:
    """Refuse studies of several protocols, or two of one protocol at the same place.

    Args:
        studies: that fit; those of different partitions may share a protocol.
        where: they were found, with the flag that said so.
        what: they are of.

    Raises:
        UsageError: they cannot be compared; all are listed.
    """
    different = len({one.protocol for one in studies}) > 1
    places = [(one.backbone, one.partition) for one in studies]
    if different or len(set(places)) < len(places):
        raise UsageError(
            f"{where} holds {len(studies)} studies of {what} that cannot be compared; choose with "
            f"--study ID: {listed(studies)}"
        )


def listed(studies: Sequence[StudyRecord]) -> str:
    """Return the ids of studies with what tells them apart, as one text.

    Where there are several protocols, all studies of one stand together under its id.
    """
    protocols: dict[str, list[StudyRecord]] = {}
    for one in studies:
        protocols.setdefault(one.protocol, []).append(one)
    several = len(protocols) > 1
    groups = list(protocols.values()) if several else [[one] for one in studies]
    ids = [g[0].id if len(g) == 1 else f"protocol {g[0].protocol[:DIGITS]}" for g in groups]
    texts = differences([group[0] for group in groups], places=not several)
    pairs = zip(ids, texts, strict=True)
    return ", ".join(f"{name} ({text})" if text else name for name, text in pairs)


def differences(studies: Sequence[StudyRecord], *, places: bool) -> list[str]:
    """Return one text a study that tells it from the others; empty where nothing is to be told.

    Args:
        studies: the studies.
        places: tell partitions, backbones and the like too. What tasks hold is told only where
            nothing else tells two studies apart.
    """
    facts = [{**(_setting(one) if places else {}), **facts_of(one)} for one in studies]
    for one, study in zip(facts, studies, strict=True):
        one["score code"] = str(study.code)
    if len({tuple(sorted(one.items())) for one in facts}) < len(facts):
        facts = [{**f, **_contents(one, studies)} for f, one in zip(facts, studies, strict=True)]
    return told_apart(facts, [_marks(one) for one in studies])


def told_apart(facts: Sequence[Mapping[str, str]], marks: Sequence[Sequence[str]]) -> list[str]:
    """Return one text a study: its marks, then the facts in which not all studies are alike.

    Args:
        facts: name → value, of every study; a name that is absent is said to be "default".
        marks: words that stand first, of every study.
    """
    names = dict.fromkeys(name for one in facts for name in one)
    telling = [name for name in names if len({one.get(name, "default") for one in facts}) > 1]
    return [
        "; ".join([*own, *(f"{name} {one.get(name, 'default')}" for name in telling)])
        for own, one in zip(marks, facts, strict=True)
    ]


def facts_of(study: StudyRecord) -> dict[str, str]:
    """Return in words what numbers of studies must share to be compared, but for the place.

    Tasks that are replaced are not among it: those are a mark of the study.
    """
    settings = {name: value for name, value in study.settings.items() if name != REPLACED}
    return {
        "gym": PurePath(study.gym).name,
        "data seeds": _words(study.data_seeds),
        "train seed": str(study.train_seed),
        "precision": study.precision,
        "downstream learning rates": _words(study.lrs),
        **{name: str(value) for name, value in flat(settings, " ").items()},
    }


def point_config(point: Point) -> UpstreamConfig:
    """Return the settings of a stored point of an upstream method.

    Raises:
        DataError: they are not those of this program.
    """
    settings = dict(point.settings)
    extra = tuple((str(name), float(value)) for name, value in settings.pop("extra", ()))
    try:
        return UpstreamConfig(**settings, extra=extra)
    except (TypeError, UsageError) as error:
        raise DataError(
            f"point {point.key}: its settings are not those of this program ({error}); read it "
            "with the version that made it"
        ) from None


def _setting(study: StudyRecord) -> dict[str, str]:
    return {
        "backbone": study.backbone,
        "partition": study.partition,
        "role": study.role,
        "sources": study.source_set,
        "source shots": str(study.source_shots or "own"),
        "target shots": str(study.target_shots or "own"),
    }


def _marks(study: StudyRecord) -> list[str]:
    marks = ["smoke run"] if study.smoke else []
    marks += [replaced_text(study.settings[REPLACED])] if REPLACED in study.settings else []
    return marks if study.smoke or study.partial is None else [*marks, study.partial]


def _contents(study: StudyRecord, studies: Sequence[StudyRecord]) -> dict[str, str]:
    """Return which tasks are not the same in all studies, with a mark of this study's samples."""
    contents = {}
    for kind in ("source", "scored"):
        own, every = getattr(study, kind), [set(getattr(one, kind)) for one in studies]
        names = sorted({task for task, *_ in set.union(*every) - set.intersection(*every)})
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        mark = digest([list(item) for item in own])[:6]
        if names:
            contents[f"{kind} tasks"] = f"{', '.join(names[:NAMED])}{more} as of {mark}"
    return {**contents, "weights": study.backbone_digest[:6], "gym at": study.gym}


def _words(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
