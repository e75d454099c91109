"""What the harness costs: its rate beside a bare client's, for each backend and batch. `python -m bench --help`."""
