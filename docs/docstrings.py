"""What the reference makes of docstrings: the comment beside a field is its docstring, and examples are code."""

import ast
import re
import textwrap
from pathlib import Path
from typing import Any

import griffe


class FieldComments(griffe.Extension):
    """`kernel: int  # side of the filter, pixels` is documented so, where the field has no docstring of its own."""

    def on_attribute_instance(self, *, node: ast.AST | griffe.ObjectNode, attr: griffe.Attribute, **_: Any) -> None:
        if isinstance(node, ast.AnnAssign) and node.end_lineno and attr.docstring is None:
            line = Path(str(attr.filepath)).read_text().splitlines()[node.end_lineno - 1]
            if comment := re.fullmatch(r".*?  # (?!noqa|type:)(.*)", line):
                attr.docstring = griffe.Docstring(comment[1], lineno=node.end_lineno, parent=attr)


class ExamplesAreCode(griffe.Extension):
    """An example that no test runs has no prompts; without a fence it would be set as prose."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            section = re.compile(r"(?<=^Examples:\n)(?:  .*\n|\n)*(?:  .*\n?)", re.MULTILINE)
            obj.docstring.value = section.sub(lambda found: _fenced(found[0]), obj.docstring.value)


def _fenced(examples: str) -> str:
    """A paragraph without prompts is code if it stands further in than the text, or if there is no prompt at all."""
    paragraphs = re.split(r"\n\s*\n", textwrap.dedent(examples).rstrip())
    prompts = any(">>> " in paragraph for paragraph in paragraphs)
    for number, paragraph in enumerate(paragraphs):
        if not paragraph.lstrip().startswith(">>> ") and (paragraph.startswith(" ") or not prompts):
            paragraphs[number] = f"```python\n{textwrap.dedent(paragraph)}\n```"
        else:
            paragraphs[number] = textwrap.dedent(paragraph)
    return textwrap.indent("\n\n".join(paragraphs), "  ") + "\n"
