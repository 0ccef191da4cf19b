"""An independent builder: interprets the recorded facts on CrossFit's own scripts.

It shares nothing with `mpt.gym` but NumPy: it reads ``crossfit_tasks.json`` (the facts), draws
with the global legacy generator as the original did, and shuffles lists in place. The digests in
``golden_digests.json`` are its output on the rows of `gym_rows`.
"""

# ruff: noqa: NPY002 (the original draws from the global legacy generator; so does its interpreter)
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

Fields = dict[str, Any]
SEEDS = (13, 21, 42, 87, 100)


def _clean(text: str) -> str:
    text = text.strip()
    for found in ("\n", "\\n", "\r", "\t"):
        text = text.replace(found, " ")
    return " ".join(text.split())


FILTERS: dict[str, Callable[[Any], Any]] = {
    "nl": lambda s: s.replace("\n", " "),
    "ws3": lambda s: s.replace("\n", " ").replace("\t", " ").replace("\r", " "),
    "strip": lambda s: s.strip(),
    "lower": lambda s: s.lower(),
    "nospace": lambda s: s.replace(" ", ""),
    "litnl": lambda s: s.replace("\\n", " "),
    "nlmark": lambda s: s.replace("\n", " [n] "),
    "comma": lambda s: s.replace("_comma_", ","),
    "unquote": lambda s: s.strip("'"),
    "maskfix": lambda s: s.replace("<mask>", "[MASK]"),
    "sp": " ".join,
    "csv": ", ".join,
    "clean": _clean,
}


def digestible(task: Fields, rows: Callable[[str], Iterable[Fields]]) -> list[bytes]:
    """Return the bytes of train, dev and test for each seed, seed after seed."""
    filters = dict(FILTERS)
    if task["task"] == "tweet_eval-emotion":
        # the facts record that the published sums need this (15 of 15 against 0 of 15)
        filters["clean"] = lambda s: " ".join(s.split())
    splits = task["splits"]
    if splits["mode"] == "pair":
        train = _lines(task, filters, rows(splits["train"]))
        test = _lines(task, filters, rows(splits["test"]))
        if "test_cap" in splits:
            np.random.seed(splits["test_cap"]["seed"])
            np.random.shuffle(test)
            test = test[: int(splits["test_cap"]["fraction"] * len(test))]
    else:
        pool = _lines(task, filters, rows(splits["pool"]))
        np.random.seed(splits["seed"])
        np.random.shuffle(pool)
        if splits["mode"] == "carve":
            train = pool[: int(splits["train_until"] * len(pool))]
            test = pool[int(splits["test_from"] * len(pool)) :]
        else:
            train = pool[slice(*splits["train"])]
            test = pool[slice(*splits["test"])]
    out = []
    for seed in SEEDS:
        for part in (*_sample(task, list(train), seed), test):
            out.append("".join(f"{a}\t{b}\n" for a, b in part).encode())
    return out


def _sample(task: Fields, pool: list[Any], seed: int) -> tuple[list[Any], list[Any]]:
    np.random.seed(seed)
    np.random.shuffle(pool)
    k = task["k"]
    if task["sampler"] == "flat":
        return pool[:k], pool[k : 2 * k]
    buckets: dict[str, list[Any]] = {}
    for line in pool:
        buckets.setdefault(line[1], []).append(line)
    train = [line for bucket in buckets.values() for line in bucket[:k]]
    return train, [line for bucket in buckets.values() for line in bucket[k : 2 * k]]


def _lines(task: Fields, filters: Fields, rows: Iterable[Fields]) -> list[Any]:
    draws = task.get("mapping_rng")
    if draws:
        np.random.seed(draws["seed"])
    rows = list(rows)
    group = task.get("group_rows")
    if group:
        rows = _grouped(group, rows)
    lines = []
    for row in rows:
        env = dict(row)
        shuffles = draws and draws["use"] == "shuffle_options"
        for name, rule in task.get("derived", {}).items():
            if not (shuffles and name == "choices"):
                env[name] = _derived(rule, row, filters)
        if any(_drops(rule, env, filters) for rule in task.get("drop_rows", [])):
            continue
        if shuffles:
            options = [
                row[f] for f in ("distractor1", "distractor2", "distractor3", "correct_answer")
            ]
            np.random.shuffle(options)
            env["choices"] = "".join(f" ({a}) {o}" for a, o in zip("ABCD", options, strict=True))
        elif draws:
            good, bad = (row[field] for field in draws["pair"])
            kept = np.random.uniform() > 0.5
            env["first"], env["second"] = (good, bad) if kept else (bad, good)
            env["which"] = 0 if kept else 1
        lines.append((_input(task, env, filters), _output(task, env, filters)))
    if task.get("merge_equal_inputs"):
        merged: dict[str, list[str]] = {}
        for a, b in lines:
            merged.setdefault(a, []).append(b)
        lines = [(a, "\t".join(b)) for a, b in merged.items()]
    return lines


def _grouped(group: Fields, rows: list[Fields]) -> list[Fields]:
    found: dict[Any, list[Fields]] = {}
    for row in rows:
        found.setdefault(_at(row, group["by"]), []).append(row)
    return [
        {**members[0], **{"_" + name: [m[name] for m in members] for name in group["collect"]}}
        for members in found.values()
    ]


def _at(row: Any, path: str) -> Any:
    for part in path.split("."):
        row = row[int(part)] if isinstance(row, list) and part.isdigit() else row[part]
    return row


def _fill(template: str, env: Fields, filters: Fields) -> str:
    def one(match: re.Match[str]) -> str:
        path, *names = match.group(1).split("|")
        value = _at(env, path)
        for name in names:
            value = filters[name](value)
        return str(value)

    return re.sub(r"\{([^{}]+)\}", one, template)


def _input(task: Fields, env: Fields, filters: Fields) -> str:
    if task["task"] == "superglue-multirc":
        ws3 = filters["ws3"]
        options = "".join(f" ({chr(65 + n)}) {ws3(a)}" for n, a in enumerate(env["_answer"]))
        return f"question: {ws3(env['question'])}{options} context: {ws3(env['paragraph'])}"
    text = _fill(task["input"]["template"], env, filters)
    for name in task["input"].get("post", []):
        text = filters[name](text)
    return text


def _output(task: Fields, env: Fields, filters: Fields) -> str:
    rule = task["output"]
    kind = rule["kind"]
    if kind == "text":
        return _fill(rule["template"], env, filters)
    if kind == "label_map":
        (word,) = (x["text"] for x in rule["labels"] if int(x["key"]) == env[rule["field"]])
        return str(word)
    if kind == "raw":
        return str(env[rule["field"]])
    if kind == "int":
        return str(int(env[rule["field"]]) + rule.get("add", 0))
    if kind == "multirc":
        right = [a for a, x in zip(env["_answer"], env["_label"], strict=True) if x == 1]
        return " [SEP] ".join(right) or "NO ANSWER!"
    items = _at(env, rule["from"])
    if rule.get("item_field"):
        items = [item[rule["item_field"]] for item in items]
    if rule.get("drop_empty"):
        items = [item for item in items if item]
    if rule.get("dedupe"):  # a set in the original; its order changes from run to run
        items = list(dict.fromkeys(items))
    for name in rule.get("filters", []):
        items = [filters[name](item) for item in items]
    return str(rule.get("sep", "\t").join(items))


def _drops(rule: Fields, env: Fields, filters: Fields) -> bool:
    value = _at(env, rule.get("field") or rule["var"])
    for name in rule.get("filters", []):
        value = filters[name](value)
    than: Any = rule.get("value")
    tests: dict[str, Callable[[], Any]] = {
        "count_ne": lambda: value.count(than["value"]) != than["count"],
        "eq": lambda: value == than,
        "ne": lambda: value != than,
        "gt": lambda: value > than,
        "lt": lambda: value < than,
        "startswith": lambda: value.startswith(than),
        "contains": lambda: than in value,
        "is_none": lambda: value is None,
        "empty": lambda: value == "",
        "fractional": lambda: value % 1 != 0,
        "len_ne_field": lambda: len(value) != len(_at(env, than)),
    }
    return bool(tests[rule["op"]]())


def _derived(rule: Fields, row: Fields, filters: Fields) -> Any:
    op = rule["op"]
    if op == "proc":
        return PROCEDURES[rule["name"]](row)
    if op == "slice":
        return row[rule["field"]][row[rule["start"]] : row[rule["end"]]]
    if op == "majority":
        (top, first), *rest = Counter(_at(row, rule["list"])).most_common()
        return None if rest and rest[0][1] == first else top
    source = rule["texts"]
    texts = _at(row, source["field"]) if "field" in source else [row[f] for f in source["fields"]]
    for name in rule.get("text_filters", []):
        texts = [filters[name](text) for text in texts]
    if op == "pick":
        index = _at(row, rule["index"])
        at = "ABCDE".index(index) if rule.get("index_kind") == "letter" else int(index)
        return texts[at - rule.get("base", 0)]
    labels = rule["labels"]
    names = _at(row, labels["field"]) if "field" in labels else labels["const"]
    pairs = list(zip(names, texts, strict=False))
    if op == "match":
        return next(text for name, text in pairs if name == _at(row, rule["key"]))
    return "".join(
        rule["item"].replace("{label}", name).replace("{text}", text) for name, text in pairs
    )


def _span(row: Fields, begin: int, inside: int) -> str:
    start = row["labels"].index(begin) if begin in row["labels"] else 0
    end = start + 1
    while end < len(row["labels"]) and row["labels"][end] == inside:
        end += 1
    return " ".join(row["tokens"][start:end])


def _math(row: Fields) -> list[str]:
    parts = row["options"].split(",")
    return [parts[0][4:-1], parts[1][5:-1], parts[2][5:-1], parts[3][5:-1], parts[4][5:]]


def _quarel(row: Fields) -> str:
    text = row["question"]
    a, b = text.index("(A)"), text.index("(B)")
    answer = text[a + 4 : b] if row["answer_index"] == 0 else text[b + 4 :]
    return (answer[:-3] if answer.endswith("or ") else answer).strip()


def _onestop(row: Fields) -> str:
    text = row["text"].replace("\n", " ")
    return text[14:] if text.startswith("Intermediate  ") else text


def _hotpot(row: Fields) -> str:
    out = ""
    for title, sentences in zip(row["context"]["title"], row["context"]["sentences"], strict=True):
        if title in row["supporting_facts"]["title"]:
            out += "".join(sentences) + " "
    return out.strip()


def _infobox(row: Fields) -> str:
    table = row["input_text"]["table"]
    out = row["input_text"]["context"].strip() + " [SEP] "
    for header, value in zip(table["column_header"], table["content"], strict=False):
        out += header + ": " + value.strip().replace("\n", " ") + " [n] "
    return out


def _freebase(row: Fields) -> list[str]:
    found = set()
    for answer in row["Parses"]["Answers"]:
        for names in answer["AnswersName"]:
            found.update(names)
    return sorted(found)


PROCEDURES: dict[str, Callable[[Fields], Any]] = {
    "acronym": lambda row: _span(row, 1, 3),
    "longform": lambda row: _span(row, 0, 2),
    "aqua_choices": lambda row: "".join(f" ({o[:2]} {o[2:]}" for o in row["options"]),
    "aqua_answer": lambda row: next(o[2:] for o in row["options"] if o[0] == row["correct"]),
    "copa": lambda row: row["choice1"] if row["label"] == 0 else row["choice2"],
    "freebase": _freebase,
    "hotpot": _hotpot,
    "infobox": _infobox,
    "lama": lambda row: row["template"].replace("[X]", row["sub_label"]).replace("[Y]", "[MASK]"),
    "math_choices": lambda row: "".join(
        f" ({a}) {o}" for a, o in zip("ABCDE", _math(row), strict=True)
    ),
    "math_answer": lambda row: _math(row)["abcde".index(row["correct"])],
    "onestop": _onestop,
    "quarel": _quarel,
    "rating": lambda row: 0 if row["rating"] < 0.4 else 1 if row["rating"] > 0.6 else None,
    "rawkeys": lambda row: list(row["answers"]["raw"]),
    "winogrande": lambda row: {1: row["option1"], 2: row["option2"]}.get(int(row["answer"])),
}
