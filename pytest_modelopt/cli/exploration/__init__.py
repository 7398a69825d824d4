"""Parts of `pytest-modelopt explore`: what is asked, what measures, and what is written."""
