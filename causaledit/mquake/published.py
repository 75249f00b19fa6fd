"""Where the data sets that people compare on are published, on what terms, and by which checksum a file is known.

Files on GitHub are fetched at a pinned commit and verified by the git blob id that its tree gives; the others by their
SHA-256. AKEW's files have neither on record: what arrives must at least be data of a known form.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """Who publishes some files.

    Attributes:
        base_url: The folder they are in.
        page: What to read about them.
        licence: Of the repository that they are part of.
        citation: What to cite.
    """

    base_url: str
    page: str
    licence: str
    citation: str


def _github(repository: str, commit: str, folder: str) -> str:
    return f"https://raw.githubusercontent.com/{repository}/{commit}/{folder}"


MQUAKE = Source(
    _github("princeton-nlp/MQuAKE", "fb43dadc2d8cd19d08ce81c63d957b59deb3f3cd", "datasets"),
    "https://github.com/princeton-nlp/MQuAKE",
    "MIT",
    "Zhong et al., MQuAKE, EMNLP 2023 (arXiv 2305.14795)",
)
CAKE = Source(
    _github("zjunlp/CaKE", "3180a1d995b148f2af74ec941c63f2c887cfe201", "datasets"),
    "https://github.com/zjunlp/CaKE",
    "MIT",
    "Yao et al., CaKE (arXiv 2503.16356); Zhong et al., MQuAKE (arXiv 2305.14795)",
)
REMASTERED = Source(
    _github("henryzhongsc/MQuAKE-Remastered", "59eb58c35deb267bb796fc9883d37f8070f6faf2", "datasets"),
    "https://github.com/henryzhongsc/MQuAKE-Remastered",
    "CC BY 4.0",
    "Zhong et al., MQuAKE-Remastered, ICLR 2025 (openreview.net/forum?id=m9wG6ai2Xk)",
)
ROME = Source(
    "https://rome.baulab.info/data/dsets",
    "https://rome.baulab.info",
    "MIT (the repository kmeng01/rome; none is stated for the files)",
    "Meng et al., Locating and Editing Factual Associations in GPT, NeurIPS 2022 (arXiv 2202.05262)",
)
MEND = Source(
    ROME.base_url,
    "https://github.com/eric-mitchell/mend",
    ROME.licence,
    "Levy et al., zsRE, CoNLL 2017 (arXiv 1706.04115); Mitchell et al., MEND, ICLR 2022 (arXiv 2110.11309)",
)
KNOWEDIT = Source(
    "https://huggingface.co/datasets/zjunlp/KnowEdit/resolve/6d218881e60c7c8be836bd2befd598eb3b318be4/benchmark",
    "https://huggingface.co/datasets/zjunlp/KnowEdit",
    "MIT",
    "Zhang et al., A Comprehensive Study of Knowledge Editing for Large Language Models (arXiv 2401.01286)",
)
QAEDIT = Source(
    _github("WanliYoung/Revisit-Editing-Evaluation", "61ccca3c1ecdb3976c9c0924e9352f3e64cc7d48", "data"),
    "https://github.com/WanliYoung/Revisit-Editing-Evaluation",
    "Apache-2.0",
    "Yang et al., The Mirage of Model Editing, ACL 2025 (arXiv 2502.11177)",
)
AKEW = Source(
    _github("bobxwu/AKEW", "6bcd8e9a28cf16a530739c14425e82e9bede2cec", "datasets"),
    "https://github.com/bobxwu/AKEW",
    "see its repository",
    "Wu et al., AKEW: Assessing Knowledge Editing in the Wild, EMNLP 2024 (arXiv 2402.18909)",
)


@dataclass(frozen=True)
class Dataset:
    """A public file.

    Attributes:
        file: Its name in the data folder.
        git_blob: Its git blob id at the pinned commit (SHA-1 of a header and the content), where it has one.
        sha256: Its SHA-256, where one is on record.
        source: Who publishes it.
        remote: Its path under the source's folder, where that is not `file`.
    """

    file: str
    git_blob: str | None = None
    sha256: str | None = None
    source: Source = MQUAKE
    remote: str | None = None


DATASETS: dict[str, Dataset] = {
    "MQuAKE-CF-3k": Dataset("MQuAKE-CF-3k.json", "b9d0963c6c1c81b24d8113ffdc3fd0865a423e18"),
    "MQuAKE-CF-3k-v2": Dataset("MQuAKE-CF-3k-v2.json", "6cf0904341e9910ce702641c5a24547ce23ff1e2"),
    "MQuAKE-T": Dataset("MQuAKE-T.json", "afd89d0c8fe5e304f771bad88cc0ced611278fe0"),
    "MQuAKE-CF-3k-cake": Dataset(
        "MQuAKE-CF-3k-cake.json", "978e418d8fd4013f5a713ac1a97ebbfb55c80e47", source=CAKE
    ),
    "MQuAKE-CF-3k-v2-cake": Dataset(
        "MQuAKE-CF-3k-v2-cake.json", "a69f56452f58095a2409476d19296b6a503be0fd", source=CAKE
    ),
    "MQuAKE-T-cake": Dataset("MQuAKE-T-cake.json", "6fef33c9eddf209cd2714e633f2bc65d5bcf35d3", source=CAKE),
    "MQuAKE-Remastered-CF-3k": Dataset(
        "MQuAKE-Remastered-CF-3k.json", "6413d4b494cd476a9f2c096f6f18dbe87151a19d", source=REMASTERED
    ),
    "MQuAKE-Remastered-CF-9k": Dataset(
        "MQuAKE-Remastered-CF-9k.json", "f72e609419a6b755dec3fcbe45ef4df3d4031338", source=REMASTERED
    ),
    "MQuAKE-Remastered-CF-6334": Dataset(
        "MQuAKE-Remastered-CF-6334.json", "d1dad73fa1a880cf0506df71aca59fb68f23f3d9", source=REMASTERED
    ),
    "MQuAKE-Remastered-T": Dataset(
        "MQuAKE-Remastered-T.json", "032bfcaa7b7711abded735701b4dea3836951af8", source=REMASTERED
    ),
    "CounterFact": Dataset(
        "CounterFact.json", sha256="d017056125178a13728594e66a801357a8db9ed7973a7425554bb4271de9fc6f",
        source=ROME, remote="counterfact.json",
    ),
    "ZsRE": Dataset(
        "ZsRE.json", sha256="8a371d512f8a6ab175db4ef672181d5c0e52da23298cb51e5a2eeea2f89aa9cd",
        source=MEND, remote="zsre_mend_eval.json",
    ),
    "KnowEdit-wiki_recent": Dataset(
        "KnowEdit-wiki_recent.json", sha256="e5c4ce6de1e8e2d10d892164ad6f4cbd28c976ed509e29e78ae853b01de1797b",
        source=KNOWEDIT, remote="wiki_recent/recent_test.json",
    ),
    "KnowEdit-wiki_counterfact": Dataset(
        "KnowEdit-wiki_counterfact.json", sha256="efc01ba398dfe04975939f729aab45523addb3c6b3cf41d7429ba5de1d45225b",
        source=KNOWEDIT, remote="wiki_counterfact/test_cf.json",
    ),
    "KnowEdit-ZsRE": Dataset(
        "KnowEdit-ZsRE.json", sha256="0e0214dda853a906ef02bef58c7ce2978af5a962e91fc4a10827e0125459905c",
        source=KNOWEDIT, remote="ZsRE/ZsRE-test-all.json",
    ),
    "KnowEdit-WikiBio": Dataset(
        "KnowEdit-WikiBio.json", sha256="00933f69b47d8281d01f1f4b84f3f266b7482a65a7d74022e660a8a9ca2264a4",
        source=KNOWEDIT, remote="WikiBio/wikibio-test-all.json",
    ),
    "QAEdit": Dataset("QAEdit.json", "5f95260c4b14490eb44019f22253549ac866da1d", source=QAEDIT),
    "AKEW-CounterFact": Dataset("AKEW-CounterFact.json", source=AKEW, remote="CounterFact.json"),
    "AKEW-MQuAKE-CF": Dataset("AKEW-MQuAKE-CF.json", source=AKEW, remote="MQuAKE-CF.json"),
    "AKEW-WikiUpdate": Dataset("AKEW-WikiUpdate.json", source=AKEW, remote="WikiUpdate.json"),
}  # fmt: skip
