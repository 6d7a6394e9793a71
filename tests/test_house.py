"""The house: imports point down, private names stay private, one pmap, no long files or functions (by ast).

Each rule is a function of {module: source} that lists what breaks it, so that it is tried on bad snippets too.
"""

import ast
import graphlib
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FLOORS = {
    0: ("layers", "architecture", "ops", "pixels"),
    1: ("network", "deconvnet", "gradients", "features", "renormalize", "parallel", "data")
    + ("relu_rules", "relu_report", "relu_table", "relu_norms", "relu_joins", "relu_patterns")
    + ("jaxpr_walk", "jaxpr_flow", "jaxpr_graph"),
}
ONLY_IN = {"tensorflow_datasets": "zfjax.data", "grain": "zfjax.data", "orbax": "zfjax.checkpoints"}
ONLY_IN |= {"matplotlib": "experiments", "tensorflow": "nowhere"}
TABLES = {"zfjax.layers", "zfjax.architecture"}  # plain Python, and of the house only each other
MACHINE_PATH = re.compile(r"(?<![\w.~:/-])/(?:work|home|root|opt|Users|mnt|scratch|srv|tmp)/\w")
TEXT = {".py", ".md", ".toml", ".yml", ".yaml", ".sh", ".cfg", ".txt", ".json"}


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def sources_of(*folders):
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return {module_name(path): path.read_text() for path in files}


LIBRARY = sources_of("zfjax", "experiments")
EVERYTHING = LIBRARY | sources_of("tests")


def floor(module):
    """0 to 3; `zfjax` itself, the public face, stands on floor 2 above all that it shows."""
    first, *rest = module.split(".")
    if first == "experiments":
        return 3
    return next((level for level, names in FLOORS.items() if rest and rest[0] in names), 2)


def imports(module, source, known):
    """(imported module, imported name or None) of every import in the source, functions' own included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(module.split(".")[: -node.level]) if node.level else ""
            base = ".".join(part for part in (base, node.module) if part)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield (full, None) if full in known else (base, alias.name)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from ((arg.value, None) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def house_imports(sources):
    """{module: modules of the house that it imports}"""
    return {
        module: {name for name, _ in imports(module, source, sources) if name in sources and name != module}
        for module, source in sources.items()
    }


def upward_imports(sources):
    return [
        f"{module} (floor {floor(module)}) imports {name} (floor {floor(name)})"
        for module, names in house_imports(sources).items()
        for name in names
        if floor(name) > floor(module)
    ]


def import_cycles(sources):
    try:
        graphlib.TopologicalSorter(house_imports(sources)).prepare()
    except graphlib.CycleError as error:
        return [" -> ".join(error.args[1])]
    return []


def is_private(name):
    return name.startswith("_") and not name.endswith("__")


def private_imports(sources):
    """`from zfjax.x import _y`, and `x._y` of a module of the house that was imported."""
    found = []
    for module, source in sources.items():
        tree, bound = ast.parse(source), set()
        for name, member in imports(module, source, sources):
            if name.split(".")[0] in ("zfjax", "experiments") and is_private(member or name.split(".")[-1]):
                found.append(f"{module} imports {name} {member}")
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                base = f"{node.module}." if isinstance(node, ast.ImportFrom) and node.module else ""
                ours = [alias for alias in node.names if f"{base}{alias.name}" in sources]
                bound |= {alias.asname or alias.name.split(".")[0] for alias in ours}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and is_private(node.attr):
                if ast.unparse(node.value).split(".")[0] in bound:
                    found.append(f"{module} reads {ast.unparse(node)}")
    return found


def guests_in_the_wrong_room(sources):
    """Libraries that only one room may import."""
    return [
        f"{module} imports {name}"
        for module, source in sources.items()
        for name, _ in imports(module, source, sources)
        if (room := ONLY_IN.get(name.split(".")[0])) and not f"{module}.".startswith(f"{room}.")
    ]


def tensorflow_imports(sources):
    return [
        f"{module} imports {name}"
        for module, source in sources.items()
        for name, _ in imports(module, source, sources)
        if name.split(".")[0] == "tensorflow"
    ]


def jax_in_architecture(sources):
    """Imports of the tables' modules that need more than Python."""
    names = {name for module in TABLES & set(sources) for name, _ in imports(module, sources[module], sources)}
    return sorted(n for n in names - TABLES if n.split(".")[0] in ("jax", "jaxlib", "flax", "numpy", "zfjax"))


def pmaps(sources):
    """Where the name pmap occurs in code."""
    return [
        module
        for module, source in sources.items()
        for node in ast.walk(ast.parse(source))
        if "pmap" in (getattr(node, "attr", None), getattr(node, "id", None), getattr(node, "name", None))
    ]


def long_functions(sources, limit=50):
    return [
        f"{module}.{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for module, source in sources.items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno + 1 > limit
    ]


def long_files(sources, limit=250):
    counts = {module: source.count("\n") for module, source in sources.items()}
    return [f"{module}: {count} lines" for module, count in counts.items() if count > limit]


def undocumented(sources):
    """Modules, public functions and classes, and public methods of public classes, that have no docstring."""
    found = []
    for module, source in sources.items():
        tree = ast.parse(source)
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_"]
        nodes = [node for owner in (tree, *classes) for node in owner.body]
        nodes = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        found += [f"{module}.{n.name}" for n in nodes if n.name[0] != "_" and not ast.get_docstring(n)]
        found += [] if ast.get_docstring(tree) or not tree.body else [module]
    return found


def test_imports_point_down():
    assert not upward_imports(LIBRARY)


def test_imports_make_no_circle():
    assert not import_cycles(LIBRARY)


def test_no_module_imports_anothers_private_name():
    assert not private_imports(LIBRARY)


def test_guests_stay_in_their_room_and_tensorflow_stays_out():
    assert not guests_in_the_wrong_room(LIBRARY)
    assert not tensorflow_imports(EVERYTHING)


def test_architecture_imports_no_jax():
    assert not jax_in_architecture(LIBRARY)


def test_pmap_stands_in_one_place():
    assert pmaps(LIBRARY) == ["zfjax.parallel"]


def test_functions_fit_one_screen():
    assert not long_functions(EVERYTHING)


def test_files_stay_short():
    assert not long_files(EVERYTHING)


def test_every_public_name_has_a_docstring():
    assert not undocumented(LIBRARY)


def test_there_is_no_drawer_for_everything():
    assert not [module for module in EVERYTHING if module.split(".")[-1] in ("utils", "util", "helpers", "misc")]


def test_no_file_names_a_path_of_one_machine():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout: which files belong to the project is unknown")
    files = [ROOT / name for name in listed.stdout.splitlines() if pathlib.Path(name).suffix in TEXT]
    assert files
    assert not [str(path) for path in files if path.exists() and MACHINE_PATH.search(path.read_text())]
