"""Which parts of TensorRT's Python interface our code uses, read off its syntax, and whether a binding has them.

Run as a script it imports a binding and prints what is missing, a line each:

    python surface.py MODULE legacy|typed|rtx|plugins
"""

import ast
import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

ROLES = {
    "runtime/messages.py": {},
    "runtime/backends/tensorrt.py": {
        "self._runtime": "Runtime",
        "self._engine": "ICudaEngine",
        "self._context": "IExecutionContext",
    },
    "engines/network.py": {
        "self.builder": "Builder",
        "self.network": "INetworkDefinition",
        "self.config": "IBuilderConfig",
        "parser": "OnnxParser",
        "error": "ParserError",
        "profile": "IOptimizationProfile",
        "tensor": "ITensor",
    },
    "engines/tensorrt.py": {
        "config": "IBuilderConfig",
        "network.config": "IBuilderConfig",
        "network.config.get_timing_cache()": "ITimingCache",
    },
    "engines/rtx.py": {"config": "IBuilderConfig"},
    "engines/roads.py": {"network": "INetworkDefinition", "layer": "ILayer"},
    "runtime/plugins/offers.py": {"library.DataType": "DataType"},
    "runtime/plugins/v3.py": {"field": "PluginField", "library.get_plugin_registry()": "IPluginRegistry"},
}
"""TensorRT's class of each expression that holds an object of TensorRT's, by file."""

LEGACY_ONLY = {"allow_legacy", "cache_reader"}
"""Functions that run in the legacy dialect alone."""
PLUGINS = ["engines/roads.py", "runtime/plugins/offers.py", "runtime/plugins/v3.py"]
FILES = {
    "legacy": [file for file in ROLES if file not in ("engines/rtx.py", *PLUGINS)],
    "typed": [file for file in ROLES if file not in ("engines/rtx.py", *PLUGINS)],
    "rtx": [file for file in ROLES if file not in ("engines/tensorrt.py", *PLUGINS)],
    "plugins": PLUGINS,
}


class Use(NamedTuple):
    """One use of the interface."""

    owner: str
    """Class, or "" for the module."""
    name: str
    positional: int | None
    """Arguments by position; None where it is not called."""
    keywords: tuple[str, ...]


def uses(source: str, roles: dict[str, str], skip: set[str] = frozenset()) -> set[Use]:
    """The uses in a file, outside the functions named in `skip` and not behind `hasattr`."""
    found = set()
    for function in functions(ast.parse(source), skip):
        guarded = guarded_nodes(function)
        calls = {id(node.func): node for node in ast.walk(function) if isinstance(node, ast.Call)}
        for node in ast.walk(function):
            owner = owner_of(node, roles) if isinstance(node, ast.Attribute) else None
            if owner is not None and id(node) not in guarded:
                found.add(Use(owner, node.attr, *arguments(calls.get(id(node)))))
    return found


def functions(tree: ast.Module, skip: set[str]) -> list[ast.AST]:
    """Module-level functions and methods, so that nothing is looked at twice."""
    bodies = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))]
    return [
        node for body in bodies for node in body if isinstance(node, ast.FunctionDef) and node.name not in skip
    ]


def guarded_nodes(function: ast.AST) -> set[int]:
    """Nodes that are reached only where `hasattr` found something, by identity."""
    guards = [node for node in ast.walk(function) if isinstance(node, ast.If) and is_hasattr(node.test)]
    return {id(node) for guard in guards for statement in guard.body for node in ast.walk(statement)}


def arguments(call: ast.Call | None) -> tuple[int | None, tuple[str, ...]]:
    """How many arguments go by position and which by keyword; None and none where there is no call."""
    if call is None:
        return None, ()
    with_self = isinstance(call.func, ast.Attribute) and call.func.attr == "__init__"
    return len(call.args) - with_self, tuple(keyword.arg or "**" for keyword in call.keywords)


def owner_of(node: ast.Attribute, roles: dict[str, str]) -> str | None:
    """What `node` is an attribute of: "" for the module, None for nothing of TensorRT's."""
    value = ast.unparse(node.value)
    if value in ("library", "self.library"):
        return ""
    member = re.fullmatch(r"(?:self\.)?library\.(\w+)", value)
    return member[1] if member else roles.get(value)


def is_hasattr(node: ast.AST) -> bool:
    """Whether `node` is `hasattr(something, "name")`."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hasattr"


def problem(library: object, use: Use) -> str | None:
    """Why `library` does not bear this use; None if it does."""
    owner = getattr(library, use.owner, None) if use.owner else library
    place = f"{use.owner}.{use.name}".lstrip(".")
    if owner is None or not hasattr(owner, use.name):
        return f"{place} is missing"
    if use.positional is None:
        return None
    target = getattr(owner, use.name)
    signatures = signatures_of(target.__init__ if inspect.isclass(target) else target)
    if signatures and not any(accepts(signature, use) for signature in signatures):
        return f"{place} does not take {use.positional} arguments and {use.keywords}"
    return None


def signatures_of(function: object) -> list[list[tuple[str, bool]]]:
    """Name and necessity of each parameter after self, per overload, as pybind11 documents them."""
    found = re.findall(r"^(?:\d+\. )?\w+\((self[^\n]*)\)(?: -> [^\n]*)?$", function.__doc__ or "", re.MULTILINE)
    return [[(p.partition(":")[0].strip(), "=" not in p) for p in split(text)[1:]] for text in found]


def split(parameters: str) -> list[str]:
    """Split at the commas outside brackets."""
    depth, parts = 0, [""]
    for character in parameters:
        depth += (character in "[(<{") - (character in "])>}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def accepts(signature: list[tuple[str, bool]], use: Use) -> bool:
    """Whether a call with these arguments fits."""
    rest = signature[use.positional :]
    names = {name for name, _ in rest}
    needed = {name for name, necessary in rest if necessary}
    return use.positional <= len(signature) and needed <= set(use.keywords) <= names


def missing(library: object, dialect: str) -> list[str]:
    """What the code of `dialect` uses and `library` lacks."""
    skip = set() if dialect == "legacy" else LEGACY_ONLY
    found = [uses((ROOT / file).read_text(), ROLES[file], skip) for file in FILES[dialect]]
    return sorted({text for use in set().union(*found) if (text := problem(library, use))})


if __name__ == "__main__":
    for line in missing(importlib.import_module(sys.argv[1]), sys.argv[2]):
        print(line)  # noqa: T201
