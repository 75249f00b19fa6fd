"""What pyproject.toml cannot say: the top-level folders `data/` and `hparams/` travel inside the package.

An installed `causaledit` so finds its bundled cases and configurations without the repository, and the folders stay at
the top, where users copy YAML files from and to EasyEdit's own `hparams/`.
"""

from setuptools import find_namespace_packages, find_packages, setup

# folders of YAML files: to setuptools each is a package of its own
HPARAMS = ["causaledit.hparams", *(f"causaledit.hparams.{name}" for name in find_namespace_packages("hparams"))]

setup(
    packages=[*find_packages(include=["causaledit", "causaledit.*"]), "causaledit.data", *HPARAMS],
    package_dir={"causaledit.data": "data", "causaledit.hparams": "hparams"},
    package_data={
        "causaledit": ["py.typed"],
        "causaledit.ability.bundled": ["*.yaml", "*.jsonl", "text.txt"],
        "causaledit.data": ["*.json", "*.md"],
        **{name: ["*.yaml"] for name in HPARAMS},
        "causaledit.models": ["model_card.md.jinja"],
        "causaledit.report": ["page.css", "page.js", "template.html.jinja"],
        "causaledit.ui": ["fragments.html.jinja", "page.css"],
    },
)
