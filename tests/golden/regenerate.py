"""Write the golden outputs anew: ``make golden``, or ``python tests/golden/regenerate.py``.

A stage whose result has changed is refused until its number in ``tract7dt/reuse/versions.py`` (or that of a
stage before it) has been raised: otherwise fields would go on with the old products.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import golden_field


def main() -> int:
    refused = 0
    with tempfile.TemporaryDirectory() as folder:
        found = golden_field.summaries(Path(folder))
    for stage, summary in found.items():
        old, new = golden_field.stored(stage), golden_field.golden(stage, summary)
        changed = golden_field.differences(old.get("summary"), summary) if old else ["no golden file yet"]
        raised = (old.get("version"), old.get("upstream")) != (new["version"], new["upstream"])
        if not changed and not raised:
            continue  # the same within the tolerance: the file stays as it is
        if changed and old and not raised:
            refused += 1
            print(f"{stage}: its result changed ({changed[0]}), its number did not: raise it in versions.py")
            continue
        text = json.dumps(new, indent=1) + "\n"
        (golden_field.FOLDER / f"{stage}.json").write_text(text, encoding="utf-8")
        print(f"{stage}: written, version {new['version']}")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
