"""``python -m edge_worker``."""

from edge_worker.main import main

main()
