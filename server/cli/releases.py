"""``noria server releases``."""

from __future__ import annotations

import json

from server.cli.terminal import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    app,
    console,
    load,
    print_json,
    rows,
    table,
    when,
)


@app.command()
def releases(config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """All releases."""
    found = rows(
        load(config),
        "SELECT version, created_s, origin, base_version, round, model_id, backbone_id, content_hash, key_id,"
        " (SELECT json_group_object(kind, size_bytes) FROM artefacts AS a WHERE a.version = r.version) AS sizes_bytes"
        " FROM releases AS r ORDER BY version",
    )
    for entry in found:
        entry["sizes_bytes"] = json.loads(entry["sizes_bytes"])
    if as_json:
        print_json({"releases": found})
        return
    console.print(
        table(
            "Releases",
            {
                "version": [str(entry["version"]) for entry in found],
                "created": [when(entry["created_s"]) for entry in found],
                "from": [
                    f"release {entry['base_version']}, round {entry['round']}" if entry["round"] else entry["origin"]
                    for entry in found
                ],
                "model": [f"{entry['model_id']:08x}" for entry in found],
                "backbone": [f"{entry['backbone_id']:08x}" for entry in found],
                "bytes on the air": [
                    ", ".join(f"{kind} {size}" for kind, size in sorted(entry["sizes_bytes"].items()))
                    for entry in found
                ],
            },
        )
    )
