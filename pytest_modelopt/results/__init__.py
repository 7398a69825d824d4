"""What one run found: plain frozen dataclasses, and their JSON form.

This room imports none of the others, so that a saved record can be judged and told again without a model.
"""
