"""What MkDocs does beyond its plugins: the tutorials, which are scripts, become pages and notebooks."""

from typing import Any

import jupytext
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: Any) -> None:
    """Every `tutorials/NAME.py` is the page `NAME.md`, and `NAME.ipynb` to be taken along."""
    for script in [file for file in files if file.src_uri.startswith("tutorials/") and file.src_uri.endswith(".py")]:
        notebook = jupytext.reads(script.content_string, fmt="py:percent")
        name = script.src_uri.removesuffix(".py")
        for ending, kind in ((".md", "markdown"), (".ipynb", "ipynb")):
            files.append(File.generated(config, name + ending, content=jupytext.writes(notebook, fmt=kind)))
        files.remove(script)
