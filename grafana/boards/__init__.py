"""The six boards, in the order in which questions lead from one to the next."""

from __future__ import annotations

from grafana.board import Board
from grafana.boards.exporter import EXPORTER
from grafana.boards.fleet import FLEET
from grafana.boards.grid import GRID
from grafana.boards.job import JOB
from grafana.boards.node import NODE
from grafana.boards.runs import RUNS

__all__ = ["BOARDS"]

BOARDS: tuple[Board, ...] = (FLEET, JOB, RUNS, NODE, GRID, EXPORTER)
