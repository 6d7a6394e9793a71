"""What MkDocs does beyond its plugins: tutorials, which are scripts, become pages and notebooks; pictures open."""

import re
from typing import Any

import jupytext
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: Any) -> None:
    """Every `tutorials/NAME.py` is the page `NAME.md`, and `NAME.ipynb` to be taken along."""
    for script in [file for file in files if file.src_uri.startswith("tutorials/") and file.src_uri.endswith(".py")]:
        notebook = jupytext.reads(script.content_string, fmt="py:percent")
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        name = script.src_uri.removesuffix(".py")
        for ending, kind in ((".md", "markdown"), (".ipynb", "ipynb")):
            files.append(File.generated(config, name + ending, content=jupytext.writes(notebook, fmt=kind)))
        files.remove(script)


def on_page_content(html: str, **_: Any) -> str:
    """A picture leads to itself, since a page shows it smaller than it was drawn; a short name stays on one line."""
    html = re.sub(r'<img [^>]*?src="([^"]+)"[^>]*>', r'<a href="\1">\g<0></a>', html)
    return re.sub(r"<code>(?=[^<\n]{1,24}</code>)", '<code class="short">', html)
