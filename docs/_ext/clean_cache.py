"""Leave in the cache of notebooks what the pages need, and no path of this machine.

    python docs/_ext/clean_cache.py

Run it after `sphinx-build -W docs docs/_build` and before a commit.
"""

import shutil
import sqlite3
from pathlib import Path

DOCS = Path(__file__).parents[1]


def main():
    cache = DOCS / "_notebook_cache"
    base = sqlite3.connect(cache / "global.db")
    pages = {path.resolve() for path in DOCS.rglob("*.md")}
    newest = {}
    # The last run of a page is the one that is kept.
    rows = base.execute("select pk, uri, hashkey from nbcache order by pk")
    for key, uri, hashed in rows.fetchall():
        name = uri.removeprefix("docs/")
        page = next((path for path in pages if str(path).endswith(name)), None)
        if page is not None:
            newest[page.relative_to(DOCS.resolve())] = (key, hashed)
    kept = {hashed for _, hashed in newest.values()}
    for page, (key, _) in newest.items():
        base.execute("update nbcache set uri = ? where pk = ?", (f"docs/{page}", key))
    keys = ", ".join(str(key) for key, _ in newest.values())
    base.execute(f"delete from nbcache where pk not in ({keys})")
    base.execute("delete from nbproject")
    base.commit()
    base.execute("vacuum")
    base.close()
    for folder in (cache / "executed").iterdir():
        if folder.name not in kept:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
