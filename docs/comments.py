"""What the reference reads of a class beyond its docstring: the comment beside each field, its shape and unit."""

import ast
import re
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
