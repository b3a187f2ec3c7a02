"""Files and folders that are whole: what stands at a path is new, or what was there."""

import contextlib
import os
import tempfile


@contextlib.contextmanager
def whole(path):
    """A path to write a file or a folder to, which then takes its place at `path`.

    If the writing fails, what stood at `path` before still does. A link stays, and what
    it points to is written anew.

    Args:
        path: where the file or the folder is to be.
    """
    path = os.path.realpath(os.fspath(path))
    # In the same folder, and so on the same disk: there a move is atomic.
    with tempfile.TemporaryDirectory(
        prefix=".writing-", dir=os.path.dirname(path)
    ) as folder:
        written = os.path.join(folder, os.path.basename(path))
        yield written
        if os.path.isdir(path):
            os.rename(path, os.path.join(folder, "old"))
        os.replace(written, path)
