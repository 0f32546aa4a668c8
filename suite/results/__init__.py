"""Records of finished and failed cells: their format, their storage, and their evaluation."""

from suite.results.records.index import Contents, StoredRecord, UnreadableRecord
from suite.results.records.reading import (
    DigestError,
    NewerSchemaError,
    RecordError,
    load_record,
    parse_record,
)
from suite.results.records.record import Record
from suite.results.records.state import CellState
from suite.results.records.store import ResultStore

__all__ = [
    "CellState",
    "Contents",
    "DigestError",
    "NewerSchemaError",
    "Record",
    "RecordError",
    "ResultStore",
    "StoredRecord",
    "UnreadableRecord",
    "load_record",
    "parse_record",
]
