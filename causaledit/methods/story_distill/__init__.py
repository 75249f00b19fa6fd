"""StoryDistill: distil a model that has read background stories into itself, on questions that need them.

Gao et al., arXiv 2602.02028. Data flow: request → story → questions → teacher's answers → context distillation → merged
model.
"""

from causaledit.methods.method import Method

METHOD = Method(
    name="StoryDistill",
    hparams="causaledit.methods.story_distill.hparams:StoryDistillHyperParams",
    edit="causaledit.methods.story_distill.apply:edit",
    report="causaledit.methods.story_distill.apply:StoryReport",
    footprint="causaledit.methods.story_distill.footprint:footprint",
    remedies="causaledit.methods.story_distill.footprint:remedies",
)
