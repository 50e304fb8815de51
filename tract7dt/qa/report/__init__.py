"""report.html: the whole run in one file, to be looked at in any browser, without a network."""

from tract7dt.qa.report.page import report_html, write_report
from tract7dt.qa.report.products import RunProducts

__all__ = ["RunProducts", "report_html", "write_report"]
