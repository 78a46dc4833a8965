"""The page of tables of lookup nodes, from the figures of `bench_tables.py`."""

from typing import Any

from documents import Table

_ROWS = (
    ("size of the version", "publish", "size_mib", "MiB"),
    ("publishing, from Parquet", "publish", "seconds", "s"),
    ("memory for that, at its peak", "publish", "peak_mib", "MiB"),
    ("memory that the open table takes (anonymous)", "look_up", "open_anon_mib", "MiB"),
    ("the same after all look-ups", "look_up", "anon_mib", "MiB"),
    ("pages of the file that were mapped by then, which the page cache has for all", "look_up", "file_mib", "MiB"),
    ("rows a second, one key a look-up, in one thread", "look_up", "rows_s_1", ""),
    ("the same as a node asks: one after another, over the gateway's threads", "look_up", "node_s_1", ""),
    ("rows a second, 100 keys a look-up, in one thread", "look_up", "rows_s_100", ""),
    ("the same as a node asks", "look_up", "node_s_100", ""),
)


def markdown(result: dict[str, Any]) -> str:
    keys = result["keys"]
    table = Table("", *(f"key `{key}`" for key in keys))
    for what, part, name, unit in _ROWS:
        table.add(what, *(f"{each[part][name]:,.0f} {unit}".rstrip() for each in keys.values()))
    rows, vector = result["rows"], result["vector"]
    about = (
        f"{rows:,} rows of a key, a text, a number and a vector of {vector} numbers, keys by chance.",
        "",
        *table.lines(),
    )
    return "\n".join(about) + "\n"
