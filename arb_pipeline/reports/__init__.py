"""Reports: one self-contained page with its tables beside it, and small previews."""

from arb_pipeline.reports.inputs import ReportInputs
from arb_pipeline.reports.preview import funnel_png, markdown_preview, png_preview, top_rows
from arb_pipeline.reports.report import ReportFiles, build_report

__all__ = [
    "ReportFiles",
    "ReportInputs",
    "build_report",
    "funnel_png",
    "markdown_preview",
    "png_preview",
    "top_rows",
]
