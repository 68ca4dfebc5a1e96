"""What a run's results look like to a person: report.html, and the table in the README."""

from .html import write_report
from .readme import markdown_table, update_readme

__all__ = ["markdown_table", "update_readme", "write_report"]
