"""Packaging. Dependencies are declared here, with ranges; `constraints.txt` pins what was tested."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

setup(
    name="causaledit",
    version="0.1.0",
    description="Causal on-policy distillation for knowledge editing, as an EasyEdit-compatible plugin",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    # The top-level folders `data/` and `hparams/` travel inside the package, so that an installed
    # `causaledit` finds its bundled cases and configurations without the repository.
    packages=[
        *find_packages(include=["causaledit", "causaledit.*"]),
        "causaledit.data",
        "causaledit.hparams",
    ],
    package_dir={"causaledit.data": "data", "causaledit.hparams": "hparams"},
    package_data={
        "causaledit.data": ["*.json", "*.md"],
        "causaledit.hparams": ["*/*.yaml"],
        "causaledit.report": ["page.css", "page.js", "template.html.jinja"],
    },
    install_requires=[
        "accelerate>=1.10,<2",
        "datasets>=4,<6",
        "filelock>=3.16",
        "gguf>=0.17",
        "httpx>=0.27",
        "jinja2>=3.1",
        "matplotlib>=3.9",
        "numpy>=1.26",
        "openai>=2,<4",
        "peft>=0.18,<0.30",
        "pyyaml>=6",
        "rich>=13.9",
        "scipy>=1.13",
        "statsmodels>=0.14.4",
        "tenacity>=9",
        "torch>=2.9",
        "transformers>=5.5,<6",
        # trl.experimental moves between releases; tests/test_trl_hooks.py tests what we override.
        "trl>=1.16,<1.17",
        "typer>=0.15",
    ],
    extras_require={
        "test": [
            "playwright>=1.50",
            "pytest>=8.3",
            "pytest-timeout>=2.3",
            "ruff>=0.9",
            "transformers[serving]",
        ],
        "gpu": ["bitsandbytes>=0.45"],
        "vllm": ["vllm"],
    },
    entry_points={"console_scripts": ["causaledit=causaledit.cli.app:main"]},
    classifiers=["License :: OSI Approved :: MIT License", "Programming Language :: Python :: 3.11"],
)
