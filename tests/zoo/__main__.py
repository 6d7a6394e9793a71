"""`python tests/zoo [NAME …]`: measure the nets, all or those with such names, into the table of docs/any_model.md."""

import sys

import page
import zoo


def main(asked):
    above, rows, below = page.parts()
    for name in zoo.NETS:
        if name not in rows or not asked or any(word in name for word in asked):
            rows[name] = page.row(name, zoo.measure(name))
            print(rows[name], end="", flush=True)
    page.write(above, rows, below)


if __name__ == "__main__":
    main(sys.argv[1:])
