"""What the README and the guides show works as written."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced code blocks of a page in one language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_configurations_and_links_exist(page: Path) -> None:
    """Every configuration that a page names ships, and every relative link leads somewhere."""
    text = page.read_text()
    for name in re.findall(r"--config ((?:genomics|audio)/\w+)", text):
        assert (ROOT / "configs" / f"{name}.yaml").is_file(), f"{page.name} names the configuration {name}"
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    """Every ``longscan`` command that a page shows is one."""
    from longscan.__main__ import verbs
    from longscan.audio import cli as audio
    from longscan.genomics import cli as genomics

    domains = {name: {verb.name for verb in cli.VERBS} for name, cli in (("audio", audio), ("genomics", genomics))}
    top = {verb.name for verb in verbs()}
    for line in "\n".join(blocks(page, "bash")).splitlines():
        match = re.search(r"\blongscan (\S+)(?: (\S+))?", line.split("#")[0])
        if match:
            assert match[1] in top, line
            assert match[1] not in domains or match[2] in domains[match[1]], line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_parse_and_import(page: Path) -> None:
    """Every name that a block imports from longscan exists."""
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("longscan"):
                module = __import__(node.module, fromlist=["x"])
                assert all(hasattr(module, alias.name) for alias in node.names)


def test_the_generation_example_runs() -> None:
    """It prints 100 new bases for the prompt of four."""
    (block,) = (b for b in blocks(ROOT / "README.md", "python") if "generate(" in b)
    names: dict[str, object] = {}
    exec("import longscan\n" + block, names)
    ids = names["ids"]
    assert isinstance(ids, torch.Tensor)
    assert ids.shape == (1, 104)
    assert set(ids.flatten().tolist()) <= {7, 8, 9, 10}


def test_the_hybrid_example_builds() -> None:
    """The YAML of the README is a backbone of 24 blocks."""
    from longscan.core.backbone import Backbone, BackboneConfig

    (block,) = (b for b in blocks(ROOT / "README.md", "yaml") if "backbone:" in b)
    config = yaml.safe_load(block)["backbone"]
    with torch.device("meta"):
        backbone = Backbone(BackboneConfig(**config))
    assert len(backbone.blocks()) == 24
    assert backbone.causal
