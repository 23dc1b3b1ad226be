"""Summaries picked from the text itself: no model, no network, no dependency."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from model_workers.extractive.blocks import Kind
from model_workers.extractive.centroid import centroid_order
from model_workers.extractive.lead import lead_order
from model_workers.extractive.sentences import Sentence, split_sentences
from model_workers.extractive.summary import Length, Order, Summary, summarize
from model_workers.extractive.task import Task, read_task

ORDERS: Final[Mapping[str, Order]] = MappingProxyType(
    {"lead": lead_order, "centroid-mmr": centroid_order}
)
"""The algorithms by the name that the catalog's `model:` gives."""

__all__ = [
    "ORDERS",
    "Kind",
    "Length",
    "Order",
    "Sentence",
    "Summary",
    "Task",
    "centroid_order",
    "lead_order",
    "read_task",
    "split_sentences",
    "summarize",
]
