"""Mirrors, the Hub (played by local stand-ins: no network in tests) and plain addresses."""

from __future__ import annotations

import dataclasses
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import huggingface_hub
import pytest

from mpt.errors import DataError
from mpt.gym.crossfit.sources import HUB_TIMEOUT, Hub, Mirror
from mpt.gym.crossfit.tasks import TaskRow, load_rows

COMMIT = "0123abcd" * 5


def test_a_mirror_gives_rows_with_line_numbers_and_lines_end_at_newline_only(
    tmp_path: Path,
) -> None:
    (tmp_path / "xsum").mkdir()
    for split in ("train", "validation"):
        path = tmp_path / "xsum" / f"{split}.jsonl"
        path.write_bytes('{"document": "a\u2028b\x85"}\n{"document": "c\\r"}'.encode())
    origin, rows = Mirror(tmp_path).open(load_rows()["xsum"])
    assert list(rows("train")) == [(1, {"document": "a\u2028b\x85"}), (2, {"document": "c\r"})]
    assert origin.source == str(tmp_path / "xsum")
    assert origin.revision == Mirror(tmp_path).key(load_rows()["xsum"])


def test_the_key_of_a_mirror_follows_the_bytes_of_the_splits_that_are_read(tmp_path: Path) -> None:
    row = load_rows()["xsum"]
    (tmp_path / "xsum").mkdir()
    for split in ("train", "validation", "test"):
        (tmp_path / "xsum" / f"{split}.jsonl").write_text("{}\n")
    before = Mirror(tmp_path).key(row)
    (tmp_path / "xsum" / "test.jsonl").write_text("{ }\n")  # xsum does not read it
    assert Mirror(tmp_path).key(row) == before
    (tmp_path / "xsum" / "validation.jsonl").write_text("{ }\n")
    assert Mirror(tmp_path).key(row) != before


def test_a_mirror_without_a_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"task xsum, split train: the mirror has no file .*jsonl"):
        Mirror(tmp_path).open(load_rows()["xsum"])


class FakeHub:
    """Stands in for the Hub's API and for `datasets.load_dataset`; notes every call."""

    def __init__(self, data: datasets.Dataset, main: list[str], converted: list[str]) -> None:
        self.data = data
        self.asked: list[str | None] = []
        self.files: dict[str | None, list[str]] = {None: main, "refs/convert/parquet": converted}
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def dataset_info(
        self, repo: str, revision: str | None = None, timeout: float | None = None
    ) -> SimpleNamespace:
        assert timeout == HUB_TIMEOUT
        self.asked.append(revision)
        siblings = [SimpleNamespace(rfilename=name) for name in self.files[revision]]
        card = SimpleNamespace(license=["mit", "other"]) if revision is None else None
        return SimpleNamespace(sha=COMMIT, siblings=siblings, card_data=card)

    def load_dataset(self, *args: Any, **kwargs: Any) -> datasets.Dataset:
        self.calls.append((args, kwargs))
        return self.data


@pytest.fixture
def columns() -> dict[str, list[Any]]:
    return {"text": ["good", "bad"], "label": [1, 0], "huge": ["x" * 10, "y" * 10]}


def install(monkeypatch: pytest.MonkeyPatch, fake: FakeHub) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: fake)
    monkeypatch.setattr(datasets, "load_dataset", fake.load_dataset)


def labelled(columns: dict[str, list[Any]]) -> datasets.Dataset:
    features = datasets.Features(
        text=datasets.Value("string"),
        label=datasets.ClassLabel(names=["neg", "pos"]),
        huge=datasets.Value("string"),
    )
    return datasets.Dataset.from_dict(columns, features=features)


def test_data_files_on_main_are_read_at_the_commit_and_only_in_the_columns_of_the_row(
    monkeypatch: pytest.MonkeyPatch, columns: dict[str, list[Any]]
) -> None:
    fake = FakeHub(labelled(columns), ["README.md", "data/train.parquet"], [])
    install(monkeypatch, fake)
    origin, rows = Hub().open(load_rows()["rotten_tomatoes"])
    assert list(rows("train")) == [
        (1, {"label": 1, "text": "good"}),
        (2, {"label": 0, "text": "bad"}),
    ]
    assert fake.calls == [
        (
            ("cornell-movie-review-data/rotten_tomatoes", None),
            {"split": "train", "revision": COMMIT},
        )
    ]
    assert (origin.revision, origin.licence) == (COMMIT, "mit, other")


def test_a_row_may_pin_a_commit(
    monkeypatch: pytest.MonkeyPatch, columns: dict[str, list[Any]]
) -> None:
    fake = FakeHub(labelled(columns), [], [])
    fake.files["feed"] = ["data/train.parquet"]
    install(monkeypatch, fake)
    row = dataclasses.replace(load_rows()["rotten_tomatoes"], revision="feed")
    origin, _ = Hub().open(row)
    assert origin.revision == COMMIT
    assert fake.asked == ["feed"]


def test_a_loading_script_is_never_run_the_converted_files_of_the_split_are_read(
    monkeypatch: pytest.MonkeyPatch, columns: dict[str, list[Any]]
) -> None:
    converted = [
        f"default/{split}/000{n}.parquet" for split in ("train", "validation") for n in (1, 0)
    ]
    for main in (["rotten_tomatoes.py"], ["rotten_tomatoes.py", "data.parquet"]):
        fake = FakeHub(labelled(columns), main, converted)
        install(monkeypatch, fake)
        origin, rows = Hub().open(load_rows()["rotten_tomatoes"])
        assert len(list(rows("validation"))) == 2
        base = f"hf://datasets/cornell-movie-review-data/rotten_tomatoes@{COMMIT}"
        paths = [f"{base}/default/validation/000{n}.parquet" for n in (0, 1)]
        assert fake.calls == [(("parquet",), {"data_files": {"rows": paths}, "split": "rows"})]
        assert origin.revision == f"refs/convert/parquet at {COMMIT}"


@pytest.mark.parametrize(
    ("files", "config", "taken"),
    [
        (
            ["plain_text/train/0.parquet", "other/train/0.parquet"],
            None,
            "plain_text/train/0.parquet",
        ),
        (["only/train/0.parquet"], None, "only/train/0.parquet"),
        (["a/train/0.parquet", "b/train/0.parquet"], "b", "b/train/0.parquet"),
        (["a/train/0.parquet", "b/train/0.parquet"], None, None),
        (["default/partial-train/0.parquet"], None, None),  # a part of a split is another sample
        (["default/train_extra/0.parquet"], None, None),
        ([], None, None),
    ],
)
def test_the_folder_of_a_split_is_found_or_its_absence_named(
    monkeypatch: pytest.MonkeyPatch,
    columns: dict[str, list[Any]],
    files: list[str],
    config: str | None,
    taken: str | None,
) -> None:
    fake = FakeHub(labelled(columns), ["rotten_tomatoes.py"], files)
    install(monkeypatch, fake)
    row = dataclasses.replace(load_rows()["rotten_tomatoes"], config=config)
    _, rows = Hub().open(row)
    if taken is None:
        with pytest.raises(DataError, match=r"split train: .* has no converted files of it"):
            list(rows("train"))
        return
    list(rows("train"))
    assert fake.calls[0][1]["data_files"]["rows"][0].endswith("/" + taken)


def test_real_parquet_files_keep_class_ids_and_widen_float32(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    features = datasets.Features(
        rating=datasets.Value("float32"), content=datasets.Value("string")
    )
    data = datasets.Dataset.from_dict(
        {"rating": [0.6, 0.4], "content": ["a", "b"]}, features=features
    )
    data.to_parquet(str(tmp_path / "0.parquet"))
    fake = FakeHub(data, ["google_wellformed_query.py"], ["default/train/0.parquet"])
    load = datasets.load_dataset

    def local(kind: str, data_files: dict[str, list[str]], split: str) -> datasets.Dataset:
        assert len(data_files["rows"]) == 1
        return load(
            kind, data_files=[str(tmp_path / "0.parquet")], split="train", cache_dir=str(tmp_path)
        )

    install(monkeypatch, fake)
    monkeypatch.setattr(datasets, "load_dataset", local)
    _, rows = Hub().open(load_rows()["google_wellformed_query"])
    (_, first), (_, second) = rows("train")
    assert first["rating"] == 0.6000000238418579
    assert second["rating"] == 0.4000000059604645


def test_offline_the_hub_is_one_clear_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError) as caught:
        Hub().open(load_rows()["xsum"])
    message = str(caught.value)
    assert message.startswith("task xsum: EdinburghNLP/xsum cannot be read from here (")
    assert message.endswith("check the network, or build from a mirror: --source DIR")
    assert "\n" not in message


def test_a_failure_in_the_middle_of_a_split_is_one_sentence_too(
    monkeypatch: pytest.MonkeyPatch, columns: dict[str, list[Any]]
) -> None:
    fake = FakeHub(labelled(columns), [], [])
    install(monkeypatch, fake)

    def broken(*args: Any, **kwargs: Any) -> datasets.Dataset:
        raise TimeoutError("read timed out\nmore lines")

    monkeypatch.setattr(datasets, "load_dataset", broken)
    _, rows = Hub().open(load_rows()["rotten_tomatoes"])
    with pytest.raises(DataError, match=r"\(TimeoutError: read timed out\); check the network"):
        next(rows("train"))


def test_a_data_set_that_is_gone_says_so_without_asking() -> None:
    with pytest.raises(DataError, match="task eli5-askh: the Hub repository is defunct"):
        Hub().open(load_rows()["eli5-askh"])


@pytest.fixture
def site() -> Iterator[dict[str, Any]]:
    answer: dict[str, Any] = {"body": b"", "length": None}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(answer["length"] or len(answer["body"])))
            self.end_headers()
            self.wfile.write(answer["body"])

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    answer["url"] = f"http://127.0.0.1:{server.server_port}/train.jsonl"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield answer
    server.shutdown()
    thread.join()
    server.server_close()


def at(url: str) -> TaskRow:
    return dataclasses.replace(load_rows()["proto_qa"], url=url)


def test_a_file_of_a_data_sets_own_site_is_read_whole(site: dict[str, Any]) -> None:
    site["body"] = b'{"question": 1}\n{"question": 2}\n'
    origin, rows = Hub().open(at(site["url"]))
    assert list(rows("train")) == [(1, {"question": 1}), (2, {"question": 2})]
    assert origin.revision.startswith("sha256:")


def test_half_a_file_is_an_error(site: dict[str, Any]) -> None:
    site["body"], site["length"] = b'{"question": 1}\n', 4000
    with pytest.raises(DataError, match=r"task proto_qa: .* cannot be read from here"):
        Hub().open(at(site["url"]))
