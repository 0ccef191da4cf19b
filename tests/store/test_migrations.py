"""Schemas: every released one opens, a newer one is refused, Optuna lives beside them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from store_records import artifact, diverged, point, run, study

from mpt.errors import DataError
from mpt.store.database import Database, open_results
from mpt.store.doctor import check
from mpt.store.migrations import config
from mpt.store.records import Stop
from mpt.store.sql import schema

ASSETS = Path(__file__).parent / "assets"


def fill(database: Database) -> None:
    """Put one of everything into a database: what ``assets/schema-N.db`` holds."""
    runs = [run(0), run(1, task="other", stopped="verdict at step 4"), diverged(2)]
    database.add_runs(runs)
    database.add_study(study())
    database.add_point(point(tuple(one.key for one in runs)))
    database.add_stop(Stop(point="p" * 64, trial="maml 3", steps=50, by="asha", reason="behind"))
    database.add_artifact(artifact())
    database.put_document("similarity", "toy", {"ranking": [["one", 0.5]]})


# `python -c "from test_migrations import *; fill(Database('sqlite:///assets/schema-N.db'))"` makes
# the asset of a new schema N, with the version that released it.
@pytest.mark.parametrize("version", range(1, int(schema.HEAD) + 1))
def test_a_database_of_every_released_schema_opens_and_keeps_everything(
    tmp_path: Path, version: int
) -> None:
    shutil.copy(ASSETS / f"schema-{version}.db", tmp_path / "mpt.db")
    with open_results(tmp_path) as database:
        runs = [run(0), run(1, task="other", stopped="verdict at step 4"), diverged(2)]
        keys = [one.key for one in runs]
        assert database.runs(keys) == {one.key: one for one in runs}
        assert database.studies() == [study()]
        assert database.points() == [point(tuple(keys))]
        assert [stop.by for stop in database.stops()] == ["asha"]
        assert database.artifacts() == [artifact()]
        assert database.documents("similarity") == {"toy": {"ranking": [["one", 0.5]]}}
        assert check(database, storage=False) == []
        assert database.add_runs(runs) == []
        assert database.add_runs([run(9)]) == [run(9).key]


def test_a_database_of_this_schema_opens_for_reading_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "mpt.db"
    shutil.copy(ASSETS / f"schema-{int(schema.HEAD)}.db", path)
    before = path.read_bytes()
    with open_results(tmp_path, read_only=True) as database:
        assert database.studies() == [study()]
    assert path.read_bytes() == before


def test_the_migrations_lead_to_the_tables_that_the_code_uses(database: Database) -> None:
    def ours(name: str | None, kind: str, parents: Any) -> bool:
        return kind != "table" or name != schema.VERSION_TABLE

    with database.reading() as connection:
        options = {"compare_type": True, "include_name": ours}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, schema.metadata) == []


def test_the_newest_migration_is_the_schema_of_the_code() -> None:
    assert ScriptDirectory.from_config(config()).get_heads() == [schema.HEAD]


def _set_version(url: str, version: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE mpt_schema SET version_num = '{version}'")
    engine.dispose()


def test_a_newer_schema_is_refused_and_left_alone(url: str) -> None:
    with Database(url) as database:
        database.add_study(study())
    _set_version(url, "9999")
    for read_only in (True, False):
        with pytest.raises(DataError, match=r"made by a newer version .*schema 9999, but this on"):
            Database(url, read_only=read_only)
    _set_version(url, schema.HEAD)
    with Database(url) as database:
        assert database.studies() == [study()]


def test_an_older_schema_is_not_changed_by_a_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_results(tmp_path) as database:
        database.add_study(study())
    monkeypatch.setattr(schema, "HEAD", "0002")  # as if this program were newer
    with pytest.raises(DataError, match="has the older schema 0001; run the search again"):
        open_results(tmp_path, read_only=True)


# --- Optuna in the same database -----------------------------------------------------------------


def _use_optuna(url: str) -> None:
    storage = optuna.storages.RDBStorage(url)
    trials = optuna.create_study(storage=storage, study_name="s", load_if_exists=True)
    trials.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    storage.remove_session()
    storage.engine.dispose()


@pytest.mark.parametrize("first", ["ours", "optuna"])
def test_optuna_keeps_its_trials_in_the_same_database(url: str, first: str) -> None:
    optuna.logging.disable_default_handler()
    path = sa.make_url(url)
    if path.get_backend_name() == "sqlite":
        Path(str(path.database)).parent.mkdir()
    if first == "optuna":
        _use_optuna(url)
    with Database(url) as database:
        fill(database)
        _use_optuna(url)
        assert database.has_table("studies")
        assert database.studies() == [study()]
    _use_optuna(url)
    storage = optuna.storages.RDBStorage(url)
    assert len(optuna.load_study(study_name="s", storage=storage).trials) >= 2
    storage.remove_session()
    storage.engine.dispose()
    with Database(url, read_only=True) as database:
        assert check(database, storage=False) == []
