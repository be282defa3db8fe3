"""``python -m tools.demo_model`` makes the models; see make.py."""

from .make import main

main()
