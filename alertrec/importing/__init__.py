"""A bank's export, file by file, into the relations `users`, `transactions` and `alert_rules`."""

from alertrec.importing.mapping import Mapping, RelationMapping, load_mapping
from alertrec.importing.use_case import ImportReport, RelationReport, import_files

__all__ = ["ImportReport", "Mapping", "RelationMapping", "RelationReport", "import_files", "load_mapping"]
