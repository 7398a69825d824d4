"""How it is told: pure functions of a record, so that a saved one can be told again without a model.

`messages` words what was found; `table` and `sentences` say what there is to say; `terminal`, `markdown` and `github`
say it in their own forms.
"""
