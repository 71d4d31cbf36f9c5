"""An inspection station for PCB lines: pictures in, verdicts out, and no event is ever lost."""

__version__ = "0.1.0"
