"""Imports go experiments -> domains -> core; no domain imports another; only experiments and conf import Hydra."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
OURS = {"core", "domains", "conf", "experiments"}
DOMAINS = {path.parent.name for path in (ROOT / "domains").glob("*/config.py")}


def imports(path: Path, at_load: bool = False) -> set[str]:
    """Dotted names of every module that a file imports: wherever in it, or outside of functions alone."""
    names, tree = set(), ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if at_load else ():
        if isinstance(node, ast.FunctionDef):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import, whose arrow would not be seen"
            assert node.module
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def module(path: Path) -> str:
    """The dotted name of a file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def files(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


def packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def test_core_imports_torch_and_nothing_of_ours():
    for path in files("core"):
        third_party = packages(path) - set(sys.stdlib_module_names) - {"core"}
        assert third_party <= {"torch", "jaxtyping"}, path


def test_no_domain_imports_another_and_none_imports_experiments():
    """But for joint, which imports the configurations of the others and loads the rest by name."""
    for path in files("domains"):
        assert not packages(path) & {"experiments", "conf"}, path
        domain = path.relative_to(ROOT / "domains").parts[0]
        others = {name for name in imports(path) if name.split(".")[1:2] and name.split(".")[1] in DOMAINS - {domain}}
        if path == ROOT / "domains" / "joint" / "config.py":
            others = {name for name in others if name.split(".")[2:3] != ["config"]}
        assert not others, path


def test_processes_are_known_to_training_alone():
    for path in files("domains"):
        assert not any(name.startswith("torch.distributed") for name in imports(path)), path


def test_nothing_but_experiments_and_conf_imports_hydra():
    for folder in ("core", "domains", "benchmarks"):
        for path in files(folder):
            assert not packages(path) & {"hydra", "omegaconf"}, path


def test_there_is_one_attention_and_one_lightning():
    for folder in OURS:
        for path in files(folder):
            text = path.read_text(encoding="utf-8")
            assert "pytorch_lightning" not in text, path
            if path != ROOT / "core" / "kernels" / "sdpa.py":
                assert "scaled_dot_product_attention(" not in text, path
            if folder != "core":
                assert "MultiheadAttention" not in text, path
                assert "torch.nn.functional.softmax" not in text, path


def test_conf_holds_choices_and_no_code():
    assert files("conf") == [ROOT / "conf" / "__init__.py"]


def test_no_modules_import_each_other_in_a_circle():
    """At import time: what a function imports when it is called may be anything."""
    modules = {module(path): path for folder in OURS for path in files(folder)}
    needs = {name: imports(path, at_load=True) & modules.keys() - {name} for name, path in modules.items()}
    order: list[str] = []
    while ready := [name for name in needs if name not in order and needs[name] <= {*order}]:
        order += ready
    assert not sorted(needs.keys() - {*order})


def test_core_loads_without_the_rest():
    heavy = ["lightning", "hydra", "timm", "gymnasium", "Bio", "transformers"]
    modules = ", ".join(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files("core"))
    code = f"import sys, {modules}; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_configuration_loads_without_torch():
    code = "import sys; from experiments import schemas, untrusted; schemas.register(); "
    code += "".join(f"untrusted.load_domain('domains.{name}').model_config; " for name in sorted(DOMAINS))
    code += "print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
